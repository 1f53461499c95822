"""Strategies on a real engine that is short of everything: rows, blocks, time and patience of callers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ift_serve.decoding.structured import StructuredOutput
from ift_serve.embedded import model_path
from ift_serve.engine.build import build_core
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.output import OutputFormat
from ift_serve.engine.protocol.reasoning import (
    AnswerKind,
    AnswerSpan,
    BestOf,
    Branch,
    EarlyExit,
    LowConfidence,
    Reasoning,
    RequestLimits,
    Trace,
    Vote,
)
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.text.prompt import PromptRenderer
from tests.support.engine_driver import Answer, Clock, Driver, generate

pytest.importorskip("llguidance", reason="structured output needs llguidance")

BLOCKS = 20
LAST_LINE = AnswerSpan(kind=AnswerKind.LAST_LINE)
TYPED: dict[str, Any] = {"open_marker": "<think>", "close_marker": "</think>"}
KINDS: dict[str, Reasoning | None] = {
    "plain": None,
    "branch": Branch(width=5, span=LAST_LINE),
    "asked": Branch(width=3, span=AnswerSpan(kind=AnswerKind.CONTINUATION, continuation_tokens=5)),
    "vote": Vote(samples=6, span=LAST_LINE),
    "low": Vote(samples=6, stop="all", span=LAST_LINE, low_confidence=LowConfidence(warm_up=2, window=2, keep=0.5)),
    "thinking vote": Vote(samples=4, span=LAST_LINE, trace=Trace(budget=8, minimum=3, **TYPED)),
    "best": BestOf(samples=4),
    "trace": Trace(
        budget=12, minimum=3, message=" So:", early_exit=EarlyExit(rule="confidence", threshold=0.2, trial_tokens=3),
        **TYPED,
    ),
}  # fmt: skip
FORM = OutputFormat(kind="regex", text=r"(yes|no), [0-9]{1,3}\.")
FORMS = ("plain", "vote", "thinking vote", "best", "trace")
"""Kinds that a form goes with."""


@dataclass
class _Engines:
    roomy: EngineCore
    tight: EngineCore
    clock: Clock
    renderer: PromptRenderer


@pytest.fixture(scope="module")
def engines() -> _Engines:
    """One with room for everything, and one of three rows, few blocks and small chunks, whose time the test moves."""
    common: dict[str, Any] = {"model": str(model_path()), "threads": 1}
    roomy, _ = build_core(EngineConfig(**common, total_blocks=256, prefix_caching=False))
    tight, _ = build_core(EngineConfig(**common, total_blocks=BLOCKS, max_sequences=3, max_batch_tokens=24))
    clock = Clock()
    tight._clock = clock
    tight._intake._clock = clock
    return _Engines(roomy, tight, clock, PromptRenderer.from_pretrained(str(model_path())))


def _request(engines: _Engines, name: str, kind: str, seed: int, has_form: bool, **options: Any) -> GenerateRequest:
    settings_ = KINDS[kind]
    prompt = engines.renderer.instruction(f"Name {seed % 5 + 1} colours.")
    is_cold = isinstance(settings_, Branch)
    return generate(
        name,
        prompt.token_ids,
        segment_ids=prompt.segment_ids,
        end_ids=[engines.renderer.tokenizer.eos_token_id],
        strategy="sample" if settings_ is None else str(settings_.__struct_config__.tag),
        reasoning=settings_,
        output=FORM if has_form and kind in FORMS else None,
        **(
            {
                "max_new_tokens": 14, "seed": seed, "ignore_eos": False, "temperature": 0.0 if is_cold else 1.0,
                "candidates": 2 if kind in ("plain", "trace") else 1, "processed_log_probs": True,
            }
            | options
        ),
    )  # fmt: skip


def _alone(engines: _Engines, request: GenerateRequest) -> Answer:
    driver = Driver(engines.roomy)
    driver.add(request)
    answer = driver.run()[request.request_id]
    stats = engines.roomy.stats()
    assert stats.free_blocks + stats.cached_blocks == 256
    return answer


def _said(answer: Answer) -> Any:
    """What a caller is told: tokens, statistics, ends, what was concluded and what it took."""
    statistics = {
        candidate: [one for output in answer.outputs if output.candidate == candidate for one in output.statistics]
        for candidate in answer.tokens
    }
    usage = answer.usage
    assert usage is not None
    counts = (usage.drawn_tokens, usage.forced_tokens, usage.sequences)
    return answer.tokens, statistics, answer.reasons, answer.outputs[-1].conclusion, counts


ASKED = st.lists(
    st.tuples(
        st.sampled_from(sorted(KINDS)), st.integers(0, 2**40), st.booleans(),
        st.sampled_from(["stays", "stays", "leaves", "late", "stop"]), st.integers(1, 40), st.integers(0, 12),
    ),
    min_size=1, max_size=5,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=ASKED)
def test_whoever_stays_is_answered_as_alone_and_every_block_comes_back(
    asked: list[tuple[str, int, bool, str, int, int]], engines: _Engines
) -> None:
    """Others leave, run out of time or are stopped, in the middle of preemptions, forks and forms."""
    core, clock = engines.tight, engines.clock
    driver = Driver(core)
    events: dict[int, list[tuple[str, str]]] = {}
    requests = {}
    for number, (kind, seed, has_form, fate, when, begin) in enumerate(asked):
        name = f"{number} {kind}"
        deadline = clock.now + 5 if fate == "late" else None
        requests[name] = _request(engines, name, kind, seed, has_form, deadline=deadline)
        events.setdefault(begin, []).append(("add", name))
        if fate != "stays":
            events.setdefault(begin + when, []).append((fate, name))
    step = 0
    while core.has_work() or any(when >= step for when in events):
        for what, name in events.pop(step, ()):
            if what == "add":
                driver.add(requests[name])
            elif what == "leaves":
                core.abort(name)
            elif what == "stop":
                core.stop(name, 0)
            else:
                clock.now += 6
        step += driver.step()
        assert step < 5000, "it does not come to an end"
    stats = core.stats()
    assert stats.free_blocks + stats.cached_blocks == BLOCKS
    assert (stats.running, stats.waiting) == (0, 0)
    for name, (kind, _, _, fate, _, _) in zip(requests, asked, strict=True):
        answer = driver.answers[name]
        if fate != "stays":
            assert answer.failure is None or answer.failure.kind in (FailureKind.DEADLINE, FailureKind.CANCELLED), kind
        elif answer.failure is not None:
            # A clock that was moved for another one is nobody's deadline; nothing else may end it.
            raise AssertionError((kind, answer.failure))
        else:
            assert _said(answer) == _said(_alone(engines, requests[name])), kind


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 2**40), total=st.integers(8, 80), has_form=st.booleans()
)
def test_a_total_of_tokens_is_kept_by_every_strategy(
    kind: str, seed: int, total: int, has_form: bool, engines: _Engines
) -> None:
    request = _request(engines, "a", kind, seed, has_form, limits=RequestLimits(total_tokens=total))
    answer = _alone(engines, request)
    if answer.failure is None:
        assert answer.usage is not None
        assert answer.usage.drawn_tokens + answer.usage.forced_tokens <= total


def test_many_forms_of_one_caller_delay_no_other_caller_by_more_than_one_of_them(engines: _Engines) -> None:
    """Read in turns by caller: the other's form is ready while most of the first one's still wait."""
    core = engines.roomy
    forms = core._intake._constraints
    assert isinstance(forms, StructuredOutput)
    ends = [2]
    slow = [OutputFormat(kind="json_schema", text=json.dumps(_wide(number))) for number in range(12)]
    many = [forms(generate(f"m{i}", [1, 2], output=one, client="greedy"), ends) for i, one in enumerate(slow)]
    other = forms(generate("o", [1, 2], output=FORM, client="other"), ends)
    assert other is not None
    while not other.is_ready:
        assert not all(one is not None and one.is_ready for one in many), "it waited for all of another's forms"
    assert other.error() == ""
    for one in many:
        assert one is not None and one.error() == ""


def _wide(number: int) -> dict[str, Any]:
    names = [f"key{number}_{i}" for i in range(150)]
    return {"type": "object", "properties": {name: {"type": "string", "maxLength": 90} for name in names}}
