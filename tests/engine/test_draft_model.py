"""A small model that guesses: answers stay what they are, whatever it says, and fewer steps where it is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ift_serve.embedded import model_path
from ift_serve.engine.build import build_core
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.drafting.draft_planner import DraftPlanner
from ift_serve.engine.drafting.model_guesses import LONGEST_GUESS, ModelGuesses
from ift_serve.engine.drafting.step_costs import StepCosts
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.runner.draft_model import DraftModel
from ift_serve.engine.sequences.draft_query import DraftQuery
from ift_serve.engine.sequences.step import SamplingRow
from tests.engine.test_speculation import told
from tests.support.engine_driver import Answer, Driver, generate
from tests.support.models import tiny_llama

PROMPT = [(17 * i + 5) % 280 + 6 for i in range(21)]
REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "drawn": {"temperature": 1.0, "seed": 5, "candidates": 3},
    "truncated": {"temperature": 1.2, "top_p": 0.8, "seed": 1},
    "penalised": {"temperature": 0.7, "repetition_penalty": 1.2, "presence_penalty": 0.4, "seed": 2},
    "biased": {"temperature": 0.5, "logit_bias": {9: 3.0, 40: -100.0}, "seed": 3},
    "told": {"temperature": 0.0, "top_logprobs": 4, "processed_log_probs": True},
}


class Always(ModelGuesses):
    """Asks the model in every step, so that what is compared does not depend on what steps take here."""

    def length(self, rates: list[float], rows: int, pace: float) -> int:
        return 1 + rows % LONGEST_GUESS


class Steady(StepCosts):
    """A row more costs little in every step, whatever steps take here."""

    def seconds(self, rows: int, sequences: int = 1) -> float:
        return 1.0 + 0.01 * rows


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the same tokens, with other weights and a shorter context."""
    return tiny_llama(tmp_path_factory.mktemp("draft"), seed=9, context=64)


def core_of(model: Path, draft: Path | None = None, **options: Any) -> EngineCore:
    common: dict[str, Any] = {"model": str(model), "threads": 1, "total_blocks": 128, "max_batch_tokens": 64}
    if draft is not None:
        common |= {"speculation": "draft", "draft_model": str(draft)}
    core, _ = build_core(EngineConfig(**(common | options)))
    if draft is not None:
        planner = core._drafts
        assert isinstance(planner, DraftPlanner) and planner._model is not None
        planner._model.__class__ = Always
        planner._costs.__class__ = Steady
        planner._most = 16  # as on a device on which rows cost little
    return core


def requests(tokens: int = 40) -> list[GenerateRequest]:
    return [
        generate(name, [*PROMPT, 30 + place], max_new_tokens=tokens, **options)
        for place, (name, options) in enumerate(REQUESTS.items())
    ]


def answers_of(core: EngineCore, asked: list[GenerateRequest]) -> dict[str, Answer]:
    driver = Driver(core)
    driver.add(*asked)
    return driver.run()


def accepted_of(answer: Answer) -> int:
    assert answer.usage is not None
    return answer.usage.accepted_tokens


def test_a_model_that_guesses_for_itself_is_right_and_answers_stay_what_they_are(model: Path) -> None:
    """With the seeds and steps of those it guesses for it draws what they draw, at any temperature."""
    plain, drafting = core_of(model), core_of(model, model)
    for request in requests():
        expected, answer = answers_of(plain, [request]), answers_of(drafting, [request])
        assert told(answer[request.request_id]) == told(expected[request.request_id]), request.request_id
        assert accepted_of(answer[request.request_id]) > 12, request.request_id


def test_a_model_that_guesses_badly_changes_nothing(model: Path, other: Path) -> None:
    plain, drafting = core_of(model), core_of(model, other)
    expected, answers = answers_of(plain, requests(60)), answers_of(drafting, requests(60))
    for name, answer in answers.items():
        assert told(answer) == told(expected[name]), name
    stats = drafting.stats()
    assert stats.drafted_tokens > 3 * stats.accepted_tokens


def test_its_cache_is_smaller_than_what_it_reads(model: Path) -> None:
    """Texts are forgotten and read again; what is in a step's batch stays."""
    core = core_of(model, model)
    guesses = core._drafts._model  # type: ignore[union-attr]
    draft = guesses._model  # type: ignore[union-attr]
    assert isinstance(draft, DraftModel)
    draft._free = draft._free[:6]
    asked = requests(40) + [generate("long", PROMPT * 5, max_new_tokens=60)]
    expected = answers_of(core_of(model), asked)
    for name, answer in answers_of(core, asked).items():
        assert told(answer) == told(expected[name]), name
    held = sum(len(text.table) for text in draft._texts.values())
    assert held + len(draft._free) == 6 and draft._is_sound
    assert core.stats().accepted_tokens > 0


def test_a_model_that_fails_is_not_asked_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = core_of(model, model)
    draft = core._drafts._model._model  # type: ignore[union-attr]
    assert isinstance(draft, DraftModel)

    def fail(*_: Any) -> None:
        raise RuntimeError("told to fail")

    monkeypatch.setattr(draft, "_draw", fail)
    expected = answers_of(core_of(model), requests(12))
    for name, answer in answers_of(core, requests(12)).items():
        assert told(answer) == told(expected[name]), name
    assert not draft._is_sound


def test_a_text_is_read_in_parts_and_not_again(model: Path) -> None:
    core = core_of(model, model, max_batch_tokens=16, max_sequences=4)
    draft = core._drafts._model._model  # type: ignore[union-attr]
    assert isinstance(draft, DraftModel)
    tokens = [*PROMPT, *PROMPT]
    row = SamplingRow(generate("a", tokens).sampling, 3, 0, 0.0, tokens, len(tokens))
    query = DraftQuery(7, tokens, row)
    assert draft.guess([query], 3) == [[]] and draft.guess([query], 3) == [[]], "16 tokens a step"
    [guessed] = draft.guess([query], 3)
    assert len(guessed) == 3
    tokens += [guessed[0], guessed[1] + 1]
    row.step += 2
    [after] = draft.guess([query], 2)
    fresh = core_of(model, model)._drafts._model._model  # type: ignore[union-attr]
    assert [after] == fresh.guess([DraftQuery(1, list(tokens), row)], 2), "what was guessed wrong is forgotten"


def test_nothing_is_guessed_beyond_the_model_s_context_or_its_tokens(model: Path, other: Path) -> None:
    draft = core_of(model, other)._drafts._model._model  # type: ignore[union-attr]
    long = [9] * 63
    row = SamplingRow(generate("a", long).sampling, 3, 0, 0.0, long, 63)
    assert draft.guess([DraftQuery(1, long, row)], 2) == [[]]
    assert len(draft.guess([DraftQuery(1, long, row)], 1)[0]) == 1
    strange = [9, 100_000]
    assert draft.guess([DraftQuery(2, strange, row)], 2) == [[]]


def test_how_far_it_guesses_follows_from_what_steps_and_guesses_take() -> None:
    def guesses(own: float, step: float, row: float) -> ModelGuesses:
        costs = StepCosts()
        found = ModelGuesses(None, costs)  # type: ignore[arg-type]
        found._waited = 0
        for _ in range(3):
            found._own.note(1, own)
            for rows in range(1, 10):
                costs.note(rows, step + row * rows, rows)
        return found

    cheap, dear = guesses(0.002, 0.05, 0.001), guesses(0.05, 0.05, 0.001)
    assert cheap.length([0.9], 1, 1 / 0.051) == LONGEST_GUESS
    assert 0 < cheap.length([0.5], 1, 1 / 0.051) < LONGEST_GUESS
    assert dear.length([0.9], 1, 1 / 0.051) == 0
    assert [dear.length([0.9], 1, 1 / 0.051) for _ in range(64)][-1] > 0, "it is tried again now and then"


def test_a_model_of_other_tokens_is_refused_by_name(model: Path) -> None:
    config = EngineConfig(
        model=str(model), threads=1, total_blocks=16, speculation="draft", draft_model=str(model_path())
    )
    with pytest.raises(ValueError, match=r"draft_model: its tokens are not the model's: '.+' is \d+"):
        build_core(config)


@pytest.mark.parametrize("given", [{"speculation": "draft"}, {"draft_model": "x"}])
def test_a_draft_model_and_its_use_go_together(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="draft_model"):
        EngineConfig(model="m", **given)
