"""What adapters were trained on beside what they were not, and what they forgot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ift_serve.client import AsyncClient, Client
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.exposure import (
    forgetting,
    part_comparisons,
    part_of,
    part_scores,
    read_trained_on,
    text_changes,
)
from ift_serve.evaluation.reporting.document import document
from ift_serve.evaluation.rows import Row
from ift_serve.evaluation.run import Plan, evaluate
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.result_store import ResultStore
from ift_serve.evaluation.tasks.registry import build_task
from ift_serve.evaluation.tasks.task import ConstraintVerdict
from ift_serve.modeling.adapter_format.base import BaseMetadata
from tests.support.adapters import EVERYTHING, write_random

_TRAINED = {"tuned": ["family:case", "instruction:punctuation:no_comma", "check:upper"]}
_MODELS = ["base", "tuned"]


def _row(model: str, key: str, families: list[str], passed: bool) -> Row:
    verdicts = {"strict": [ConstraintVerdict(family, passed) for family in families]}
    kind = "instruction" if ":" in families[0] else "family"
    return Row(model, "unseen", key, 0, "?", answer="x", verdicts=verdicts, labels={"kind": kind})


def _both(key: str, families: list[str], before: bool, after: bool) -> list[Row]:
    return [_row("base", key, families, before), _row("tuned", key, families, after)]


@pytest.fixture
def rows() -> list[Row]:
    found = _both("a", ["case"], False, True) + _both("b", ["punctuation:no_comma"], False, True)
    for number in range(6):
        found += _both(f"u{number}", ["sort"], number < 4, number < 3 or number == 5)
    return found + _both("mixed", ["case", "sort"], True, False)


def test_a_prompt_is_seen_if_all_of_it_was_trained_on() -> None:
    names = _TRAINED["tuned"]
    assert part_of("family", ["case"], names) == part_of("check", ["upper"], names) == "seen"
    assert part_of("family", ["sort", "upper"], names) == part_of("", ["case"], names) == "unseen"
    assert part_of("family", ["case", "sort"], names) is None and part_of("family", [], names) is None


def test_scores_are_told_apart_by_part_for_base_and_adapter(rows: list[Row]) -> None:
    found = {(s.part, s.model): (s.value, s.prompts) for s in part_scores(rows, _MODELS, _TRAINED)}
    assert found == {
        ("seen", "base"): (0.0, 2), ("seen", "tuned"): (1.0, 2),
        ("unseen", "base"): (4 / 6, 6), ("unseen", "tuned"): (4 / 6, 6),
    }  # fmt: skip
    compared = {c.part: (c.comparison.difference, c.comparison.prompts) for c in
                part_comparisons(rows, _MODELS, _TRAINED)}  # fmt: skip
    assert compared == {"seen": (1.0, 2), "unseen": (0.0, 6)}


def test_forgetting_is_what_the_base_kept_and_the_adapter_lost(rows: list[Row]) -> None:
    (found,) = forgetting(rows, _MODELS, _TRAINED)
    assert (found.kept, found.lost, found.gained, found.prompts) == (4, 1, 1, 6)
    assert found.share == 0.25 and found.low < 0.25 < found.high and found.p_value == 1.0


def test_an_adapter_of_which_nothing_is_known_has_no_parts(rows: list[Row]) -> None:
    assert part_scores(rows, _MODELS, {}) == [] and forgetting(rows, _MODELS, {}) == []


def test_texts_are_compared_in_bits_a_byte() -> None:
    texts = [Row(m, "perplexity", "0", 0, "?", log_prob=p, text_bytes=8) for m, p in (("base", -5.5), ("tuned", -11.0))]
    (change,) = text_changes(texts, _MODELS)
    assert change.after == pytest.approx(2 * change.before) and change.texts == 1


def test_a_directory_says_what_an_adapter_was_trained_on(tmp_path: Path) -> None:
    (tmp_path / "ift_config.json").write_text(json.dumps({"recipe": {"trained_on": ["family:case"]}}))
    assert read_trained_on(tmp_path) == read_trained_on(tmp_path / "ift_config.json") == ["family:case"]
    (tmp_path / "ift_config.json").write_text(json.dumps({"recipe": {}}))
    with pytest.raises(EvaluationError, match=r"recipe.trained_on: is missing"):
        read_trained_on(tmp_path)


async def test_the_server_says_what_an_adapter_was_trained_on(
    tiny_server: str, tiny_model: Path, adapter_root: Path
) -> None:
    write_random(adapter_root / "told", BaseMetadata.of_directory(tiny_model), EVERYTHING, seed=1)
    path = adapter_root / "told" / "ift_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["recipe"]["trained_on"] = ["family:case", 7, "x" * 201]
    path.write_text(json.dumps(config), encoding="utf-8")
    write_random(adapter_root / "silent", BaseMetadata.of_directory(tiny_model), EVERYTHING, seed=2)
    with Client(tiny_server) as client:
        loaded = client.load_adapter("told", "told")
        client.load_adapter("silent", "silent")
    assert loaded.trained_on == ("family:case",)
    settings = DecodingSettings.read({"temperature": 0, "max_new_tokens": 2})
    async with AsyncClient(tiny_server, retries=0) as client:
        plan = Plan([build_task("unseen", {})], ["base", "told"], settings, limit=40)
        found = document(await evaluate(client, plan, ResultStore()), plan)
        assert found["trained_on"] == {f"told@{loaded.version}": ["family:case"]}
        assert {(p["part"], p["prompts"] > 0) for p in found["parts"]} == {("seen", True), ("unseen", True)}
        for adapters, message in (
            (["base"], "name an adapter beside the base"),
            (["base", "silent"], r"silent@.*: nothing says what it was trained on; .*--recipe silent=DIR"),
        ):
            with pytest.raises(EvaluationError, match=message):
                await evaluate(client, Plan([build_task("unseen", {})], adapters, settings), ResultStore())
        given = Plan([build_task("unseen", {})], ["base", "silent"], settings, limit=4, trained_on={"silent": ["x"]})
        assert (await evaluate(client, given, ResultStore())).trained_on
