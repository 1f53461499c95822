"""Names of an adapter's training data that an evaluation can look up: families, checks and instructions."""

from __future__ import annotations

from collections.abc import Iterable

from ift_serve.checks.instructions import BenchmarkInstruction
from ift_training.data.records import Record
from ift_training.data.report import DataReport

TRAINED_ON = "trained_on"
"""Under what the list stands in the recipe of ``ift_config.json``."""


def names_of(record: Record) -> set[str]:
    """``family:case`` of a generated example, ``check:upper`` or ``instruction:punctuation:no_comma`` of each check."""
    found = {f"family:{record.example.family}"} if record.example is not None else set()
    for check in record.checks:
        if isinstance(check, BenchmarkInstruction):
            found.add(f"instruction:{check.instruction_id}")
        else:
            found.add(f"check:{check.type}")
    return found


def trained_on(report: DataReport, families: Iterable[str]) -> list[str]:
    """Of all sources that were trained on. ``families``: those that the recipe names; a sample may miss some."""
    names = {f"family:{name}" for name in families}
    for source in report.sources:
        if source.kept:
            names |= source.trained_on
    return sorted(names)
