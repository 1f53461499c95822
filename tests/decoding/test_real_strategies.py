"""The strategies over the embedded model: what it does not depend on, what it costs, what is left behind."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ift_serve.embedded import model_path
from ift_serve.engine.build import build_core
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.generate import Conclusion, GenerateRequest
from ift_serve.engine.protocol.reasoning import (
    AnswerKind,
    AnswerSpan,
    BestOf,
    Branch,
    EarlyExit,
    LowConfidence,
    Reasoning,
    Trace,
    Vote,
)
from ift_serve.engine.protocol.results import FailureKind, FinishReason
from ift_serve.text.prompt import PromptRenderer
from tests.support.engine_driver import Answer, Clock, Driver, generate

BLOCKS = 64
QUESTION = "Ben has 12 apples. Then Ben gets 7 more apples. How many apples does Ben have?"
TYPED: dict[str, Any] = {"open_marker": "<think>", "close_marker": "</think>"}
EXIT = EarlyExit(rule="confidence", threshold=0.3, trial_tokens=4)
SETTINGS: dict[str, Reasoning] = {
    "branch": Branch(width=6),
    "asked": Branch(width=4, aggregate="sum", span=AnswerSpan(kind=AnswerKind.CONTINUATION, continuation_tokens=6)),
    "vote": Vote(samples=8),
    "settled": Vote(samples=7, stop="settled", weight="borda"),
    "unsure": Vote(samples=8, stop="all", low_confidence=LowConfidence(warm_up=3, window=2, keep=0.5)),
    "thinking vote": Vote(samples=5, trace=Trace(budget=12, **TYPED)),
    "best": BestOf(samples=5),
    "trace": Trace(budget=20, minimum=4, message=" It is late.", early_exit=EXIT, **TYPED),
}


@pytest.fixture(scope="module")
def renderer() -> PromptRenderer:
    return PromptRenderer.from_pretrained(str(model_path()))


def core_of(**options: Any) -> EngineCore:
    defaults: dict[str, Any] = {"model": str(model_path()), "total_blocks": BLOCKS, "threads": 1}
    core, _ = build_core(EngineConfig(**(defaults | options)))
    return core


@pytest.fixture(scope="module")
def wide() -> EngineCore:
    return core_of(total_blocks=256, prefix_caching=False)


@pytest.fixture(scope="module")
def narrow() -> EngineCore:
    """Two rows, few blocks, chunks of a few tokens."""
    return core_of(max_sequences=2, max_batch_tokens=16, total_blocks=24)


@pytest.fixture(scope="module")
def clocked() -> tuple[EngineCore, Clock]:
    """An engine whose time the test moves."""
    core, clock = core_of(), Clock()
    core._clock = clock
    return core, clock


@pytest.fixture
def counted(wide: EngineCore, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens that each step of the wide engine computes."""
    counts: list[int] = []
    execute = wide._runner.execute

    def counting(batch: Any) -> Any:
        counts.append(sum(len(step.token_ids) for step in batch.sequences))
        return execute(batch)

    monkeypatch.setattr(wide._runner, "execute", counting)
    return counts


def ask(
    renderer: PromptRenderer, settings: Reasoning, name: str = "a", question: str = QUESTION, **options: Any
) -> GenerateRequest:
    prompt = renderer.instruction(question)
    warm = not isinstance(settings, Branch | Trace)
    defaults = {"max_new_tokens": 24, "temperature": 1.0 if warm else 0.0, "seed": 5, "ignore_eos": False}
    return generate(
        name,
        prompt.token_ids,
        segment_ids=prompt.segment_ids,
        end_ids=[renderer.tokenizer.eos_token_id],
        strategy=str(settings.__struct_config__.tag),
        reasoning=settings,
        **(defaults | options),
    )


def run(core: EngineCore, *requests: GenerateRequest) -> dict[str, Answer]:
    driver = Driver(core)
    driver.add(*requests)
    return driver.run()


def conclusion_of(answer: Answer) -> Conclusion:
    assert answer.failure is None, answer.failure
    conclusion = answer.outputs[-1].conclusion
    assert conclusion is not None
    return conclusion


def unused(core: EngineCore) -> int:
    stats = core.stats()
    return stats.free_blocks + stats.cached_blocks


@pytest.mark.parametrize("name", SETTINGS)
def test_neither_rows_nor_company_change_what_is_concluded(
    name: str, wide: EngineCore, narrow: EngineCore, renderer: PromptRenderer
) -> None:
    settings = SETTINGS[name]
    alone = run(wide, ask(renderer, settings))["a"]
    others = [ask(renderer, SETTINGS["vote"], "b", seed=1), ask(renderer, SETTINGS["branch"], "c", max_new_tokens=9)]
    crowded = run(narrow, others[0], ask(renderer, settings), others[1])["a"]
    assert alone.failure is None and alone.tokens[0]
    assert alone.tokens == crowded.tokens and alone.reasons == crowded.reasons
    assert conclusion_of(alone) == conclusion_of(crowded)
    assert alone.usage is not None and crowded.usage is not None
    for count in ("drawn_tokens", "forced_tokens", "sequences"):
        assert getattr(alone.usage, count) == getattr(crowded.usage, count)
    assert (unused(wide), unused(narrow)) == (256, 24)


def test_a_branch_is_the_greedy_text_after_its_first_token_and_its_confidence_is_that_of_its_number(
    wide: EngineCore, renderer: PromptRenderer
) -> None:
    """Against plain requests whose prompt ends with the branch token."""
    request = ask(renderer, Branch(width=4))
    conclusion = conclusion_of(run(wide, request)["a"])
    prompt = request.token_ids
    ends = {renderer.tokenizer.eos_token_id, *renderer.encoder.markers.ids}
    plain = {"end_ids": [renderer.tokenizer.eos_token_id], "ignore_eos": False}
    start = run(wide, generate("s", prompt, top_logprobs=20, max_new_tokens=1, **plain))["s"].outputs[0]
    firsts = [token for token, _ in start.top_log_probs[0] if token not in ends][:4]
    best = -1.0
    for first, branch in zip(firsts, conclusion.branches, strict=True):
        rest = run(wide, generate("r", [*prompt, first], max_new_tokens=23, **plain))["r"]
        ids = [first, *rest.tokens[0]]
        text = renderer.decoder.decode([i for i in ids if i not in ends])
        numbers = [*re.finditer(r"\d+", text)]
        statistics = [start.statistics[0], *(s for output in rest.outputs for s in output.statistics)]
        assert branch.tokens == len(ids)
        if not numbers:
            assert branch.answer == ""
            continue
        assert branch.answer == numbers[-1].group()
        margins, shown = [], ""
        for token, one in zip(ids, statistics, strict=True):
            before, shown = len(shown), shown + ("" if token in ends else renderer.decoder.decode([token]))
            if before < numbers[-1].end() and len(shown) > numbers[-1].start():
                margins.append(one.p1 - one.p2)
        assert shown == text
        assert branch.confidence == pytest.approx(sum(margins) / len(margins), abs=1e-6)
        best = max(best, branch.confidence)
    assert best > 0, "the model answers with numbers"
    assert conclusion.confidence == pytest.approx(best)


def test_branches_share_one_prefill(wide: EngineCore, renderer: PromptRenderer, counted: list[int]) -> None:
    request = ask(renderer, Branch(width=8))
    answer = run(wide, request)["a"]
    usage = answer.usage
    assert usage is not None and usage.sequences == 8
    # The prompt, and each token once that another one follows; a branch token of each fork.
    assert sum(counted) <= len(request.token_ids) + usage.drawn_tokens + 8


def test_samples_share_one_prefill_though_some_begin_later(
    wide: EngineCore, renderer: PromptRenderer, counted: list[int]
) -> None:
    request = ask(renderer, Vote(samples=24, span=AnswerSpan(kind=AnswerKind.LAST_LINE)), seed=6)
    usage = run(wide, request)["a"].usage
    assert usage is not None and usage.sequences > 4
    assert sum(counted) <= len(request.token_ids) + usage.drawn_tokens + usage.sequences


def test_a_vote_that_agrees_early_costs_a_part_of_a_whole_one(wide: EngineCore, renderer: PromptRenderer) -> None:
    easy: dict[str, Any] = {"question": "What is 23 + 14?", "temperature": 0.3}
    whole = run(wide, ask(renderer, Vote(samples=16, stop="all"), **easy))["a"]
    early = run(wide, ask(renderer, Vote(samples=16), **easy))["a"]
    assert whole.usage is not None and early.usage is not None
    assert early.usage.drawn_tokens < whole.usage.drawn_tokens
    assert conclusion_of(whole).answer == conclusion_of(early).answer
    assert whole.usage.sequences == 16 and whole.usage.drawn_tokens == sum(
        branch.tokens for branch in conclusion_of(whole).branches
    )


@pytest.mark.parametrize("seed", range(4))
def test_an_early_stopped_vote_draws_the_first_samples_of_the_full_one(
    seed: int, wide: EngineCore, renderer: PromptRenderer
) -> None:
    full = conclusion_of(run(wide, ask(renderer, Vote(samples=12, stop="all"), seed=seed))["a"]).branches
    early = conclusion_of(run(wide, ask(renderer, Vote(samples=12), seed=seed))["a"]).branches
    ended = [(place, one) for place, one in enumerate(early) if one.ended is not FinishReason.STOP]
    assert len(ended) >= 4
    for place, one in ended:
        assert (one.answer, one.tokens) == (full[place].answer, full[place].tokens)
        assert one.confidence == pytest.approx(full[place].confidence, rel=1e-5)


def test_a_thought_s_minimum_is_drawn_from_what_is_left_of_the_distribution(
    wide: EngineCore, renderer: PromptRenderer
) -> None:
    """At temperature 1 a mask only takes mass away from what it forbids."""
    settings = Trace(budget=30, minimum=12, **TYPED)
    # A story is thought about in many ways, a sum in one.
    story = "Write a short story about a cat."
    options: dict[str, Any] = {"question": story, "temperature": 1.0, "processed_log_probs": True, "max_new_tokens": 8}
    answers = [run(wide, ask(renderer, settings, seed=seed, **options))["a"] for seed in range(6)]
    assert len({tuple(answer.tokens[0]) for answer in answers}) == 6, "a thought is drawn, not the likeliest"
    for answer in answers:
        drawn = [one for output in answer.outputs for one in output.statistics if not one.forced]
        assert all(one.processed[0] > one.log_prob - 1e-6 for one in drawn[:12])
        assert any(one.processed[0] > one.log_prob + 1e-5 for one in drawn[:12])
        for one in drawn[12:]:
            assert one.processed[0] == pytest.approx(one.log_prob, abs=1e-4)


def test_the_thought_is_as_long_as_its_budget(wide: EngineCore, renderer: PromptRenderer) -> None:
    for budget in (0, 1, 9):
        settings = Trace(budget=budget, message=" So:", **TYPED)
        answer = run(wide, ask(renderer, settings, max_new_tokens=8, ignore_eos=True))["a"]
        forced = [one.forced for output in answer.outputs for one in output.statistics]
        ids = answer.tokens[0]
        text = renderer.decoder.decode(ids)
        if budget:
            assert text.startswith("<think>") and text.count(" So:</think>") == 1
            begin = forced.index(False)
            assert forced[begin:].index(True) == budget
        else:
            assert "think>" not in text, "nothing is opened that has to be closed at once"
        assert answer.reasons == {0: FinishReason.LENGTH}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_deadline_and_a_leaving_caller_free_every_block(
    name: str, clocked: tuple[EngineCore, Clock], renderer: PromptRenderer
) -> None:
    core, clock = clocked
    driver = Driver(core)
    for steps in (3, 9, 17):
        late = ask(renderer, SETTINGS[name], f"late {name} {steps}", deadline=clock.now + 5, max_new_tokens=60)
        driver.add(late)
        for _ in range(steps):
            driver.step()
        clock.now += 6
        driver.run()
        answer = driver.answers[late.request_id]
        assert answer.finished and (answer.failure is None or answer.failure.kind is FailureKind.DEADLINE)
        gone = ask(renderer, SETTINGS[name], f"gone {name} {steps}", max_new_tokens=60)
        driver.add(gone)
        for _ in range(steps):
            driver.step()
        core.abort(gone.request_id)
        driver.run()
        assert unused(core) == BLOCKS
