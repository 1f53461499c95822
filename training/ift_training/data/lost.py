"""Refuses data of which so much is lost that the training would not be the one that was meant."""

from __future__ import annotations

import math

from ift_training.data.report import DataReport, SourceReport, percent
from ift_training.data.sources import SourceError


def check_nothing_missing(report: DataReport) -> None:
    """Every source, and every task of it that was read, has records left. Raises SourceError."""
    for found in report.sources:
        if not found.usable:
            raise SourceError(
                f"{found.path}: no record of {found.name} can be used; mend it or take it out. {_why(found)}"
            )
        if empty := [task for task, kept in found.tasks.items() if not kept]:
            raise SourceError(
                f"{found.path}: no record of the task {', '.join(empty)} can be used; mend it or take it out. "
                + _why(found)
            )


def too_much(report: DataReport, allowed: float) -> tuple[SourceReport, str] | None:
    """The first source that loses more than a share of its records or of their wrong answers, and what to tell."""
    for found in report.sources:
        if found.lost_share > allowed:
            least = math.ceil(100 * found.lost_share) / 100
            return found, (
                f"{found.path}: {found.lost} of {found.read} records of {found.name} are lost "
                f"({percent(found.lost_share)}), more than the recipe's max_lost ({percent(allowed)}). Mend them, or "
                f"allow it: --set max_lost={least:g}."
            )
        if found.unpaired_share > allowed:
            least = math.ceil(100 * found.unpaired_share) / 100
            longer = f"set max_length={found.length_to_pair}" if found.length_to_pair else "give other answers too"
            return found, (
                f"{found.path}: {found.unpaired} of {found.usable} records of {found.name} have no wrong answer for "
                f"the instruction loss ({percent(found.unpaired_share)}), more than the recipe's max_lost "
                f"({percent(allowed)}). Either {longer}, or set trainer.losses.instruction=0, or allow it: "
                f"--set max_lost={least:g}."
            )
    return None


def check_lost(report: DataReport, allowed: float) -> None:
    """No source loses more than a share of its records, nor of their wrong answers. Raises SourceError."""
    if (much := too_much(report, allowed)) is not None:
        found, said = much
        raise SourceError(f"{said} {_why(found)}")


def _why(found: SourceReport) -> str:
    return " ".join(f"{line}." for line in (*found.reasons(), *found.longer()))
