"""The state of every random generator, so that a resumed run draws what it would have drawn."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def _file(directory: Path, rank: int) -> Path:
    return directory / f"random-{rank}.safetensors"


def save_random(directory: Path, rank: int) -> None:
    """Write the generators' state of this process: Python's, numpy's, torch's on the CPU and on each GPU."""
    directory.mkdir(parents=True, exist_ok=True)
    version, words, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    assert version == 3 and kind == "MT19937", "generators of another kind"
    state: dict[str, Tensor] = {
        "python": torch.tensor(words),
        "python_gauss": _optional(gauss),
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
        "numpy_place": torch.tensor([place, has_gauss]),
        "numpy_gauss": torch.tensor([cached], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        state |= {f"cuda-{i}": found for i, found in enumerate(torch.cuda.get_rng_state_all())}
    save_file(state, _file(directory, rank))


def load_random(directory: Path, rank: int) -> bool:
    """Put back what :func:`save_random` wrote for this process; False if there is nothing, as with more processes."""
    path = _file(directory, rank)
    if not path.exists():
        return False
    state = load_file(path)
    gauss = state["python_gauss"]
    random.setstate((3, tuple(state["python"].tolist()), float(gauss[0]) if len(gauss) else None))
    place, has_gauss = state["numpy_place"].tolist()
    keys = state["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, place, has_gauss, float(state["numpy_gauss"][0])))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            if (found := state.get(f"cuda-{device}")) is not None:
                torch.cuda.set_rng_state(found, device)
    return True


def _optional(value: float | None) -> Tensor:
    return torch.tensor([] if value is None else [value], dtype=torch.float64)
