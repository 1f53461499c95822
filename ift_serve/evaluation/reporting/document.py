"""The report as JSON: everything that tables, pages and comparisons are made of."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ift_serve.evaluation import exposure
from ift_serve.evaluation.breakdowns import curves, reliability, turn_scores
from ift_serve.evaluation.comparison import Comparison, compare, compare_families
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.exposure import TrainedOn
from ift_serve.evaluation.rows import Row
from ift_serve.evaluation.run import Plan, Result
from ift_serve.evaluation.scores import coverage, scores, text_scores

FORMAT = 1


def document(result: Result, plan: Plan) -> dict[str, Any]:
    """The report of a run: models are compared with the first of them."""
    info = result.served.info
    found = report_of(result.rows, result.models, result.trained_on)
    totals = dataclasses.asdict(result.runner.totals)
    found["server"] = {
        "model": info.name,
        "fingerprint": info.fingerprint,
        "template_fingerprint": info.template_fingerprint,
        "dtype": info.dtype,
        "weights": info.weights,
        "device": info.device,
        "version": info.version,
    }
    found["settings"] = plan.settings.described() | {"repeats": plan.repeats, "seed": plan.seed, "limit": plan.limit}
    found["run"] = totals | {"seconds": result.seconds, "concurrency": result.runner.concurrency}
    found["notes"] = [f"{task.name}: {note}" for task in plan.tasks for note in task.notes]
    found["created"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return found


def report_of(
    rows: Sequence[Row], models: Sequence[str], trained_on: TrainedOn = MappingProxyType({})
) -> dict[str, Any]:
    """Scores and comparisons of rows. ``trained_on``: by adapter, what its training had."""
    return {
        "format": FORMAT,
        "models": list(models),
        "scores": [dataclasses.asdict(score) for score in scores(rows)],
        "texts": [dataclasses.asdict(score) for score in text_scores(rows)],
        "coverage": [dataclasses.asdict(c) | {"share": c.share} for c in coverage(rows)],
        **_comparisons(rows, [(models[0], other) for other in models[1:]]),
        "curves": [dataclasses.asdict(point) for point in curves(rows)],
        "reliability": [dataclasses.asdict(found) for found in reliability(rows)],
        **exposure.plain(trained_on, rows, models),
        "turns": [dataclasses.asdict(found) for found in turn_scores(rows)],
        "rows": [row.values() for row in rows],
    }


def _comparisons(rows: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Of pairs of models, by prompts and by families of constraints."""
    whole = [c for first, second in pairs for c in compare(rows, first, second)]
    families = [c for first, second in pairs for c in compare_families(rows, first, second)]
    return {"comparisons": [_plain(c) for c in whole], "family_comparisons": [_plain(c) for c in families]}


def _plain(compared: Comparison) -> dict[str, Any]:
    return dataclasses.asdict(compared) | {"is_significant": compared.is_significant}


def write_document(found: dict[str, Any], path: Path) -> None:
    """Write it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps(found, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    draft.replace(path)


def read_document(path: Path) -> dict[str, Any]:
    """A report that was written. Raises EvaluationError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: cannot be read: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise EvaluationError(f"{path}: is no report of format {FORMAT}")
    return found


def rows_of(found: dict[str, Any], path: Path) -> list[Row]:
    """The rows of a report. Raises EvaluationError."""
    try:
        return [Row.read(values) for values in found["rows"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(f"{path}: rows: cannot be read: {error!r}") from None


def merged(first: Path, second: Path) -> dict[str, Any]:
    """A report that compares two: models of one name with one another, else the first of each."""
    documents = [read_document(path) for path in (first, second)]
    rows = [rows_of(found, path) for found, path in zip(documents, (first, second), strict=True)]
    shared = [name for name in documents[0]["models"] if name in documents[1]["models"]]
    pairs = [(name, name) for name in shared] or [(documents[0]["models"][0], documents[1]["models"][0])]
    every: list[Row] = []
    for one, other in pairs:
        every += [dataclasses.replace(row, model=f"A: {one}") for row in rows[0] if row.model == one]
        every += [dataclasses.replace(row, model=f"B: {other}") for row in rows[1] if row.model == other]
    known = [found.get("trained_on", {}) for found in documents]
    trained_on = {
        f"{side}: {name}": names for side, own in zip("AB", known, strict=True) for name, names in own.items()
    }
    found = report_of(every, list(dict.fromkeys(row.model for row in every)), trained_on)
    compared = _comparisons(every, [(f"A: {one}", f"B: {other}") for one, other in pairs])
    return found | compared | {"created": documents[1].get("created", ""), "server": {}, "settings": {}}
