"""Records of a store as a file that is trained on."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from ift_training.data.convert import whole_file
from ift_training.data.generation.record import Status
from ift_training.data.generation.seeds import SEED
from ift_training.data.generation.store import RecordStore

_USUAL: tuple[Status, ...] = ("kept",)


def export(store: RecordStore, path: Path, statuses: Collection[Status] = _USUAL, *, seeds: bool = False) -> int:
    """Write records with an answer as JSON Lines, in the order of their making; how many. Raises SourceError."""
    written = 0
    with whole_file(path) as file:
        for record in store.records():
            if record.status in statuses and record.response.strip() and (seeds or record.lineage.step != SEED):
                file.write(json.dumps(record.line(), ensure_ascii=False) + "\n")
                written += 1
    return written
