"""The base model that an option names."""

from __future__ import annotations

from pathlib import Path


def base_of(name: str) -> Path:
    """Directory of a base that is named by directory, hub id or as the embedded one. Raises NoModelError."""
    from ift_serve.embedded import EMBEDDED_NAME, model_path
    from ift_serve.modeling.checkpoint.location import base_directory

    return model_path() if name == EMBEDDED_NAME else base_directory(name)


def is_base(name: str) -> bool:
    """Whether a base of that name is on this machine."""
    from ift_serve.modeling.checkpoint.location import NoModelError

    try:
        return "\0" not in name and (base_of(name) / "config.json").is_file()
    except NoModelError:
        return False
