"""The model that comes with the package, so that a bare machine has something true to serve."""

from __future__ import annotations

from pathlib import Path

EMBEDDED_NAME = "ift-tiny"


def model_path() -> Path:
    """Directory of the embedded model. Raises FileNotFoundError if the package was installed without it."""
    path = Path(__file__).parent / "ift_tiny"
    if not (path / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"{path}: the embedded model is missing; reinstall ift-serve, or train it: "
            f"python -m ift_training.tiny --output {path}"
        )
    return path
