"""A hub cache of our own, as a download would have left it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(model: Path, hub_id: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy a model into a cache under an id, and have the cache looked in. Gives the copy's directory."""
    folder = cache / f"models--{hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(_COMMIT)
    snapshot = folder / "snapshots" / _COMMIT
    shutil.copytree(model, snapshot)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return snapshot
