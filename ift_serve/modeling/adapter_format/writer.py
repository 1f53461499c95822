"""Writes an adapter directory that PEFT can read without us, and anyone on the machine may."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ift_serve.modeling.adapter_format.config import CARD, IFT_CONFIG, IFT_WEIGHTS, PEFT_CONFIG, PEFT_WEIGHTS, IftConfig

if TYPE_CHECKING:
    from torch import Tensor

_ORDER = (PEFT_WEIGHTS, IFT_WEIGHTS, CARD, PEFT_CONFIG, IFT_CONFIG)
"""Configurations last: until they are there, a reader finds no adapter rather than half of one."""


def write_adapter(
    directory: Path,
    *,
    peft_fields: dict[str, Any] | None,
    peft_tensors: dict[str, Tensor],
    config: IftConfig,
    extras: dict[str, Tensor],
    card: str,
) -> None:
    """Write the files of an adapter (mode 0644) beside the directory, then put them into it in one go.

    A directory that is new appears complete. In one that exists, other files stay; a reader at that moment finds the
    old adapter, none, or the new one, and ``read_adapter`` refuses one that changes under its eyes.

    peft_fields: what PEFT's ``LoraConfig.to_dict()`` gives, None without LoRA. peft_tensors: as
    ``get_peft_model_state_dict`` names them. extras: the components' ``state_dict()``. card: the text of README.md.
    Raises OSError.
    """
    from safetensors.torch import save

    files = {IFT_CONFIG: _json(config.model_dump(mode="json")), CARD: card.encode()}
    if peft_fields is not None:
        files[PEFT_CONFIG] = _json(peft_fields)
        files[PEFT_WEIGHTS] = save(_plain(peft_tensors), metadata={"format": "pt"})
    if extras:
        files[IFT_WEIGHTS] = save(_plain(extras), metadata={"format": "pt"})
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for name, content in files.items():
            _write(scratch / name, content)
        scratch.chmod(0o755)
        _publish(scratch, directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _json(fields: dict[str, Any]) -> bytes:
    def listed(value: Any) -> Any:
        return sorted(value) if isinstance(value, set | frozenset) else str(value)

    # Never sorted: of several patterns that match a module, PEFT takes the first in the file.
    return (json.dumps(fields, indent=2, default=listed) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)


def _publish(scratch: Path, directory: Path) -> None:
    if not directory.exists():
        scratch.rename(directory)
    else:
        for name in reversed(_ORDER):
            if name != CARD:
                (directory / name).unlink(missing_ok=True)
        for name in _ORDER:
            if (scratch / name).exists():
                (scratch / name).replace(directory / name)
    _sync(directory)
    _sync(directory.parent)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
