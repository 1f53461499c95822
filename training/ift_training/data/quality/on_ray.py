"""Filters on a Ray cluster, by Ray Data: chunks are tasks of any node, and what they find comes in any order."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

from ift_serve.checks import parse_checks
from ift_serve.checks.errors import MissingExtraError
from ift_serve.system.ray_cluster import NoClusterError, join
from ift_training.data.quality.errors import QualityError
from ift_training.data.quality.filter import Filter
from ift_training.data.quality.filters import (
    Findings,
    fingerprint,
    packed,
    score_all,
    text_filters,
    unpacked,
    vector_filters,
)
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.recipe import QualityRecipe

Kind = Literal["text", "vectors"]
_AT_ONCE = 1024
"""Chunks of one dataset: what is written between them is not computed again by a run that goes on after a kill."""


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or the one of this node. Raises QualityError."""
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    try:
        import ray.data  # noqa: F401 - needs packages that Ray itself does without
    except ImportError as error:
        raise QualityError(f"--engine ray: {error}; pip install 'ift-serve[ray]'") from error
    try:
        join("auto", log_to_driver=False)
    except NoClusterError as error:
        raise QualityError(f"--engine ray: {error}; RAY_ADDRESS names another") from error


@dataclass(frozen=True)
class FilterSource:
    """What a node makes its filters of, as plain values. ``fingerprint``: of the filters that they must come to."""

    recipe: str
    examination: tuple[str, ...]
    kind: Kind
    with_references: bool
    fingerprint: str

    @classmethod
    def of(
        cls,
        recipe: QualityRecipe,
        examination: Sequence[str],
        filters: Sequence[Filter],
        kind: Kind,
        *,
        references: bool,
    ) -> FilterSource:
        """The source of filters that were made here."""
        return cls(recipe.model_dump_json(), tuple(examination), kind, references, fingerprint(filters))


class RayScorers:
    """See :class:`ift_training.data.quality.scoring.Scorers`.

    A node that dies takes nothing with it: Ray computes its chunks again on another, to the same findings. Within a
    chunk texts are batched as they are locally.
    """

    def __init__(self, source: FilterSource) -> None:
        self._source = source

    def scored(self, work: Iterator[list[Pair]]) -> Iterator[tuple[list[Pair], list[Findings]]]:
        """Each chunk with its findings, as they come. Raises QualityError where a node cannot judge as is done here."""
        while chunks := list(itertools.islice(work, _AT_ONCE)):
            for place, found in self._found(chunks):
                yield chunks[place], found

    def _found(self, chunks: list[list[Pair]]) -> Iterator[tuple[int, list[Findings]]]:
        import ray
        from ray.exceptions import RayError

        rows = [{"place": place, "pairs": written(chunk)} for place, chunk in enumerate(chunks)]
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            score_chunk,
            fn_kwargs={"source": self._source},
            batch_size=1,
            batch_format="numpy",
            # Tasks and not actors: an actor of a node that died waits for room, and its chunks with it.
            num_cpus=1,
        )
        try:
            for row in data.iter_rows():
                if row["problem"]:
                    raise QualityError(f"--engine ray: {row['problem']}")
                yield int(row["place"]), [unpacked(one) for one in json.loads(row["findings"])]
        except RayError as error:
            said = str(error).strip().splitlines() or [""]
            text = f"--engine ray: {type(error).__name__}: {said[-1]}; what was found so far is kept, begin again"
            raise QualityError(text) from error


def written(pairs: Sequence[Pair]) -> str:
    """A chunk as JSON."""
    return json.dumps([asdict(p) | {"checks": [check.model_dump(mode="json") for check in p.checks]} for p in pairs])


def read(text: str) -> list[Pair]:
    """The chunk that :func:`written` has written."""
    return [
        Pair(**one | {
            "earlier": tuple(one["earlier"]),
            "checks": parse_checks(one["checks"]),
            "references": tuple(one["references"]),
        })
        for one in json.loads(text)
    ]  # fmt: skip


def score_chunk(batch: dict[str, Any], source: FilterSource) -> dict[str, Any]:
    """On a node: a chunk's place, and its findings as JSON; or else why this node cannot have them."""
    found, problem = "[]", ""
    try:
        filters = _filters(source)
    except (MissingExtraError, QualityError, OSError) as error:
        problem = f"{_node()}: {error}"
    else:
        found = json.dumps([packed(one) for one in score_all(filters, read(str(batch["pairs"][0])))])
    return {"place": batch["place"], "findings": [found], "problem": [problem]}


@lru_cache(maxsize=2)
def _filters(source: FilterSource) -> list[Filter]:
    """Made once by a process. Raises QualityError if they would find other things than where the run was begun."""
    recipe = QualityRecipe.model_validate_json(source.recipe)
    if source.kind == "text":
        filters = text_filters(recipe, source.examination)
    else:
        filters = vector_filters(recipe, source.examination, source.with_references)
    if fingerprint(filters) != source.fingerprint:
        raise QualityError(
            "the filters here differ from those of the node where the run was begun; "
            "install the same version of ift-serve and the same sentence model on both"
        )
    return filters


def _node() -> str:
    import ray

    return f"node {ray.util.get_node_ip_address()}" if ray.is_initialized() else "this process"
