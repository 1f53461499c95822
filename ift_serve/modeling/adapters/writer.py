"""Writes an adapter directory that PEFT can read without us, and anyone on the machine may."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ift_serve.modeling.adapters.config import IFT_CONFIG, IFT_WEIGHTS, PEFT_CONFIG, PEFT_WEIGHTS, IftConfig

if TYPE_CHECKING:
    from torch import Tensor


def write_adapter(
    directory: Path,
    *,
    peft_fields: dict[str, Any] | None,
    peft_tensors: dict[str, Tensor],
    config: IftConfig,
    extras: dict[str, Tensor],
    card: str,
) -> None:
    """Write all files beside the directory, then put them in its place: a reader sees the old adapter or the new one.

    peft_fields: what PEFT's ``LoraConfig.to_dict()`` gives, None without LoRA; peft_tensors: as
    ``get_peft_model_state_dict`` names them. Raises OSError.
    """
    from safetensors.torch import save

    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        if peft_fields is not None:
            _write(scratch / PEFT_CONFIG, _json(peft_fields))
            _write(scratch / PEFT_WEIGHTS, save(_plain(peft_tensors), metadata={"format": "pt"}))
        _write(scratch / IFT_CONFIG, _json(config.model_dump(mode="json")))
        if extras:
            _write(scratch / IFT_WEIGHTS, save(_plain(extras), metadata={"format": "pt"}))
        _write(scratch / "README.md", card.encode())
        scratch.chmod(0o755)
        _replace(scratch, directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _json(fields: dict[str, Any]) -> bytes:
    def listed(value: Any) -> Any:
        return sorted(value) if isinstance(value, set) else str(value)

    return (json.dumps(fields, indent=2, sort_keys=True, default=listed) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)


def _replace(scratch: Path, directory: Path) -> None:
    """Directories cannot replace one another in one step, so the files are moved where there is one already."""
    if not directory.exists():
        scratch.rename(directory)
        return
    new = {entry.name for entry in scratch.iterdir()}
    for name in {PEFT_CONFIG, PEFT_WEIGHTS, IFT_CONFIG, IFT_WEIGHTS} - new:
        (directory / name).unlink(missing_ok=True)
    for entry in sorted(scratch.iterdir()):
        entry.replace(directory / entry.name)
