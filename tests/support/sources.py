"""Files of records, and what sources come to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ift_training.data.encode import Encoder
from ift_training.data.selection import TrainingData, prepare
from ift_training.data.settings import SourceSettings, ValidationSettings


def write(path: Path, records: Sequence[Any]) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def numbered(path: Path, count: int) -> Path:
    return write(path, [{"instruction": f"Say {i}.", "output": str(i)} for i in range(count)])


def data(encoder: Encoder, *sources: SourceSettings, share: float = 0.0, seed: int = 0, **other: Any) -> TrainingData:
    return prepare(sources, ValidationSettings(share=share), encoder, seed, **other)
