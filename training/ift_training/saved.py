"""Completeness of a checkpoint, checked before it is resumed. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ift_serve.modeling.adapter_format.config import IFT_CONFIG, IFT_WEIGHTS, PEFT_WEIGHTS

OPTIMIZER, SCHEDULER, STATE = "optimizer.safetensors", "scheduler.json", "trainer_state.json"
_HEADER = 8
_LARGEST_HEADER = 100_000_000


def read_state(checkpoint: Path) -> dict[str, Any]:
    """transformers' record of the run so far. Raises OSError, ValueError."""
    found: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    return found


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name, -1 where there is none."""
    number = checkpoint.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1


def unfinished(folder: Path, report: str) -> Path | None:
    """The last checkpoint of a run that did not come to its end: one that is later than the report, or has none."""
    last = max(folder.glob("checkpoint-*"), key=step_of, default=None)
    try:
        done = int(json.loads((folder / report).read_text(encoding="utf-8"))["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        done = -1
    return last if last is not None and step_of(last) > done else None


def incomplete(checkpoint: Path) -> str | None:
    """What a checkpoint lacks, None if nothing. The state is written last."""
    try:
        for name in (IFT_CONFIG, SCHEDULER, STATE):
            json.loads((checkpoint / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{name} is missing or damaged"
    for name in (OPTIMIZER, PEFT_WEIGHTS, IFT_WEIGHTS):
        path = checkpoint / name
        if not path.exists() and name == OPTIMIZER:
            return f"{name} is missing"
        if path.exists() and not _is_whole(path):
            return f"{name} is damaged"
    if not any(checkpoint.glob("random-*")):
        return "the random state is missing"
    return None


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_HEADER), "little")
        if not 2 <= length <= min(size - _HEADER, _LARGEST_HEADER):
            return False
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return size == _HEADER + length + max(ends, default=0)
