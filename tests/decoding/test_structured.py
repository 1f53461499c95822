"""Answers of a form, with a real model: what is drawn is of the form, and without one nothing changes."""

from __future__ import annotations

import copy
import json
import re
import time
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.forms import FormatError, grammar_of
from ift_serve.decoding.sequence_rules import SequenceRules
from ift_serve.decoding.structured import StructuredOutput
from ift_serve.embedded import model_path
from ift_serve.engine.build import build_core
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.core.strategy import Branch, Control, Strategy
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.output import OutputFormat
from ift_serve.engine.protocol.reasoning import AnswerKind, AnswerSpan, EarlyExit, Trace, Vote
from ift_serve.engine.protocol.results import FailureKind, FinishReason
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.engine.sequences.step import SampledToken
from tests.support.engine_driver import Answer, Driver, generate

pytest.importorskip("llguidance", reason="structured output needs llguidance")

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 1, "maxItems": 2},
    },
    "required": ["name", "count", "tags"],
    "additionalProperties": False,
}
JSON_SCHEMA = OutputFormat(kind="json_schema", text=json.dumps(SCHEMA))
REGEX = OutputFormat(kind="regex", text=r"(yes|no), [0-9]{2}\.")
GRAMMAR = OutputFormat(kind="grammar", text='start: item ("; " item)*\nitem: /[a-z]{2,4}/\n')


@pytest.fixture(scope="module")
def context() -> StrategyContext:
    return StrategyContext.of_model(str(model_path()), [])


@pytest.fixture
def core() -> EngineCore:
    return _core


_core: EngineCore


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    global _core
    _core, _ = build_core(EngineConfig(model=str(model_path()), total_blocks=256))


def prompt(context: StrategyContext, text: str) -> list[int]:
    assert context.renderer is not None
    return list(context.renderer.instruction(text).token_ids)


def text_of(context: StrategyContext, token_ids: list[int]) -> str:
    assert context.decoder is not None
    return str(context.renderer.tokenizer.decode(token_ids, skip_special_tokens=True))  # type: ignore[union-attr]


def ask(core: EngineCore, context: StrategyContext, output: OutputFormat | None, **options: Any) -> Answer:
    driver = Driver(core)
    settings = {"temperature": 1.0, "max_new_tokens": 120, "ignore_eos": False, "seed": 5}
    ids = prompt(context, "Write a short story about a cat.")
    driver.add(generate("a", ids, output=output, **(settings | options)))
    return driver.run()["a"]


def fits(output: OutputFormat, text: str) -> bool:
    """Checked without the library that made the masks."""
    if output is JSON_SCHEMA:
        found = json.loads(text)
        return (
            set(found) == {"name", "count", "tags"}
            and isinstance(found["name"], str) and len(found["name"]) <= 12
            and isinstance(found["count"], int) and 0 <= found["count"] <= 99
            and 1 <= len(found["tags"]) <= 2 and set(found["tags"]) <= {"red", "green"}
        )  # fmt: skip
    pattern = r"(yes|no), [0-9]{2}\." if output is REGEX else r"[a-z]{2,4}(; [a-z]{2,4})*"
    return re.fullmatch(pattern, text) is not None


@pytest.mark.parametrize("output", [JSON_SCHEMA, REGEX, GRAMMAR], ids=lambda one: one.kind)
@pytest.mark.parametrize("seed", range(3))
def test_every_answer_that_ends_is_of_the_form(
    core: EngineCore, context: StrategyContext, output: OutputFormat, seed: int
) -> None:
    answer = ask(core, context, output, seed=seed, candidates=3)
    assert answer.failure is None
    ended = [c for c, reason in answer.reasons.items() if reason is FinishReason.EOS]
    assert len(ended) >= (1 if output is GRAMMAR else 3), answer.reasons
    for candidate in ended:
        assert fits(output, text_of(context, answer.tokens[candidate])), text_of(context, answer.tokens[candidate])


def test_a_form_that_is_refused_leaves_no_account_open(core: EngineCore, context: StrategyContext) -> None:
    before = core._scheduler.accounts.active
    failure = ask(core, context, REGEX, ignore_eos=True).failure
    assert failure is not None and failure.field == "output.regex"
    assert core._scheduler.accounts.active == before


def test_a_form_changes_no_answer_beside_it(core: EngineCore, context: StrategyContext) -> None:
    alone = ask(core, context, None)
    driver = Driver(core)
    ids = prompt(context, "Write a short story about a cat.")
    common = {"temperature": 1.0, "max_new_tokens": 120, "ignore_eos": False, "seed": 5}
    driver.add(generate("a", ids, **common), generate("b", ids, output=REGEX, **common))
    answers = driver.run()
    assert answers["a"].tokens == alone.tokens
    assert answers["b"].tokens == ask(core, context, REGEX).tokens


def test_the_statistics_are_of_the_raw_distribution(core: EngineCore, context: StrategyContext) -> None:
    plain = ask(core, context, None, temperature=0.0, max_new_tokens=1).outputs[0].statistics[0]
    held = ask(core, context, REGEX, temperature=0.0, max_new_tokens=1).outputs[0].statistics[0]
    assert (plain.p1, plain.entropy) == pytest.approx((held.p1, held.entropy))
    assert held.log_prob <= plain.log_prob


class Replaces(Strategy):
    """Takes the first token back for another that the form allows, and forks."""

    streams = False
    records = True
    alternatives = 20

    def __init__(self, request: GenerateRequest) -> None:
        self.ends: list[Branch] = []

    def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
        if branch.ordinal == 0 and branch.generated_count == 3:
            control.fork(branch)
            control.force(branch, [token.token_id], replace_last=True)

    def on_end(self, control: Control, branch: Branch, reason: FinishReason) -> None:
        self.ends.append(branch)
        if not control.live:
            for candidate, ended in enumerate(self.ends):
                control.reveal(ended, candidate)


def test_forks_and_replaced_tokens_keep_their_place_in_the_form(context: StrategyContext) -> None:
    config = EngineConfig(model=str(model_path()), total_blocks=64)
    runner = ModelRunner(config)
    forms = StructuredOutput(context, runner.description.vocabulary_size)
    answer = ask(
        EngineCore(runner, config, {"replaces": Replaces}, constraints=forms),
        context,
        REGEX,
        strategy="replaces",
        candidates=2,
    )
    assert len(answer.tokens) == 2
    for tokens in answer.tokens.values():
        assert fits(REGEX, text_of(context, tokens))


@pytest.mark.parametrize("trace", [None, Trace(budget=3, open_marker="<think>", close_marker="</think>")])
def test_samples_of_a_vote_that_begin_behind_ended_ones_are_of_the_form(
    core: EngineCore, context: StrategyContext, trace: Trace | None
) -> None:
    """The end of an answer whose form nothing can follow is not the form's to take back."""
    vote = Vote(samples=12, stop="posterior", span=AnswerSpan(kind=AnswerKind.LAST_LINE), trace=trace)
    answer = ask(core, context, REGEX, strategy="vote", reasoning=vote, temperature=3.0)
    assert answer.failure is None
    conclusion = answer.outputs[-1].conclusion
    assert conclusion is not None and len(conclusion.branches) > 4
    ended = [branch.answer for branch in conclusion.branches if branch.ended is FinishReason.EOS]
    assert len(ended) > 4 and all(fits(REGEX, text) for text in ended)


@pytest.mark.parametrize("rule", ["entropy", "confidence"])
def test_a_prompt_before_a_trial_answer_is_no_part_of_the_form(
    core: EngineCore, context: StrategyContext, rule: Literal["entropy", "confidence"]
) -> None:
    assert context.renderer is not None
    newlines = context.renderer.encoder.encode("\n\n", "x", any_length=True).ids
    exits = EarlyExit(rule=rule, threshold=1e-6, least_probes=1, trial_tokens=3, prompt="Final answer:")
    trace = Trace(budget=60, minimum=0, open_marker="<think>", close_marker="</think>", early_exit=exits)
    bias = dict.fromkeys(newlines, 12.0)
    answer = ask(core, context, REGEX, strategy="trace", reasoning=trace, logit_bias=bias)
    assert answer.failure is None and answer.usage is not None and answer.usage.sequences > 1
    assert answer.reasons == {0: FinishReason.EOS}
    assert fits(REGEX, text_of(context, answer.tokens[0]).split("</think>")[1])


def test_a_thought_before_an_answer_of_a_form_does_not_end_it(core: EngineCore, context: StrategyContext) -> None:
    trace = Trace(budget=5, open_marker="<think>", close_marker="</think>")
    likely = dict.fromkeys(sorted(context.end_ids), 50.0)
    answer = ask(core, context, REGEX, strategy="trace", reasoning=trace, logit_bias=likely)
    assert answer.failure is None and answer.reasons == {0: FinishReason.EOS}
    assert fits(REGEX, text_of(context, answer.tokens[0]).split("</think>")[1])


def test_a_thought_before_a_form_is_opened_by_those_who_open_thoughts(context: StrategyContext) -> None:
    """This model's are opened by its prompts; it gives the marker little, but what the form allows still less."""
    assert context.renderer is not None and context.phases is not None and context.phases.is_opened_by_prompt
    opening = context.renderer.encoder.encode("<think>", "x", any_length=True).ids[0]

    def allows_opening(known: StrategyContext, asked: Trace | None) -> bool:
        request = generate("a", prompt(context, "Hello"), output=REGEX, reasoning=asked)
        constraint = StructuredOutput(known, 3072)(request, [2])
        assert constraint is not None
        while not constraint.is_ready:
            time.sleep(0.01)
        mask = constraint.mask()
        assert mask is not None
        return bool(mask.words().view(np.uint32)[opening // 32] >> opening % 32 & 1)

    opens_itself = copy.copy(context.phases)
    opens_itself.is_opened_by_prompt = False
    assert not allows_opening(context, None)
    assert allows_opening(replace(context, phases=opens_itself), None)


def test_preemption_changes_nothing(context: StrategyContext) -> None:
    small, _ = build_core(
        EngineConfig(model=str(model_path()), total_blocks=8, max_sequences=4, prefix_caching=False, context_length=96)
    )
    driver = Driver(small)
    ids = prompt(context, "Write a short story about a cat.")
    common = {"temperature": 1.0, "max_new_tokens": 60, "ignore_eos": False}
    for number in range(4):
        driver.add(generate(str(number), ids, output=JSON_SCHEMA, seed=number, **common))
    answers = driver.run()
    assert small.stats().preemptions > 0
    for number in range(4):
        alone = Driver(_core)
        alone.add(generate("a", ids, output=JSON_SCHEMA, seed=number, **common))
        assert alone.run()["a"].tokens == answers[str(number)].tokens


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (OutputFormat(kind="json_schema", text="{"), "not JSON"),
        (OutputFormat(kind="json_schema", text="[1]"), "object"),
        (OutputFormat(kind="json_schema", text='{"type": "nonsense"}'), "nonsense"),
        (OutputFormat(kind="json_schema", text="[" * 50_000), "not JSON"),
        (OutputFormat(kind="regex", text="(a"), "regex"),
        (OutputFormat(kind="grammar", text="start: nowhere"), "nowhere"),
        (OutputFormat(kind="regex", text="a" * 70_000), "512 bytes"),
    ],
)
def test_what_is_no_form_is_refused_by_name(
    core: EngineCore, context: StrategyContext, output: OutputFormat, message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        grammar_of(output)
    failure = ask(core, context, output).failure
    assert failure is not None
    assert (failure.kind, failure.field) == (FailureKind.INVALID, f"output.{output.kind}")
    assert message in failure.message


@pytest.mark.parametrize(
    "output",
    [
        OutputFormat(kind="regex", text=r"[^\s\S]"),
        OutputFormat(kind="json_schema", text='{"$ref": "#"}'),
    ],
)
def test_a_form_that_no_answer_has_is_refused(core: EngineCore, context: StrategyContext, output: OutputFormat) -> None:
    failure = ask(core, context, output).failure
    assert failure is not None and failure.kind is FailureKind.INVALID
    assert failure.message == f"output.{output.kind}: no answer has this form"


def test_an_empty_answer_can_have_a_form(core: EngineCore, context: StrategyContext) -> None:
    answer = ask(core, context, OutputFormat(kind="regex", text=""))
    assert answer.reasons == {0: FinishReason.EOS} and text_of(context, answer.tokens[0]) == ""


@pytest.mark.parametrize(
    "output",
    [
        OutputFormat(kind="regex", text="(" + "a?" * 150 + "){50}" + "a" * 150),
        OutputFormat(kind="regex", text=".*" * 255),
        OutputFormat(kind="regex", text="(((a{1,100}){1,100}){1,100}){1,100}"),
        OutputFormat(kind="grammar", text="start: " + "(" * 300 + '"a"' + "?)*" * 300),
    ],
)
def test_a_form_that_explodes_fails_its_request_alone(
    core: EngineCore, context: StrategyContext, output: OutputFormat
) -> None:
    driver = Driver(core)
    ids = prompt(context, "Write a short story about a cat.")
    driver.add(generate("a", ids, output=output, ignore_eos=False), generate("b", ids))
    answers = driver.run()
    assert answers["b"].failure is None and answers["b"].tokens
    assert answers["a"].finished


def test_a_form_that_fails_on_the_way_says_why_and_no_more(context: StrategyContext) -> None:
    """The matcher's error goes on with its whole state, for those who mend it."""
    assert context.renderer is not None
    constraint = StructuredOutput(context, 3072)(generate("a", [1], output=REGEX), [2])
    assert constraint is not None
    while not constraint.is_ready:
        time.sleep(0.01)
    constraint.take(context.renderer.encoder.encode("maybe", "x", any_length=True).ids[0])
    mask = constraint.mask()
    assert mask is not None and not mask.words().any()
    assert "doesn't satisfy the grammar" in constraint.error() and "state>" not in constraint.error()


def test_a_model_without_ends_or_texts_is_refused(context: StrategyContext) -> None:
    from ift_serve.engine.protocol.refused import RefusedError

    request = generate("a", [1], output=REGEX)
    with pytest.raises(RefusedError, match="no token that ends"):
        StructuredOutput(context, 100)(request, [])
    with pytest.raises(RefusedError, match="tokenizer"):
        StructuredOutput(StrategyContext(None, None), 100)(request, [1])


def test_a_thought_has_no_form_and_the_answer_has() -> None:
    """With the ids of markers that this test gives the model: what is between them is anything."""
    context = StrategyContext.of_model(str(model_path()), [])
    forms = StructuredOutput(context, 3072)
    trace = Trace(budget=6, open_marker="<think>", close_marker="</think>")
    request = generate("a", prompt(context, "How are you?"), output=REGEX, strategy="trace", reasoning=trace)
    assert context.renderer is not None and context.phases is not None
    start = SequenceRules.of(request, context, trace, "reasoning").start
    assert start is not None
    constraint = forms(request, [2])
    assert constraint is not None
    while not constraint.is_ready:
        time.sleep(0.01)
    opening, closing = (list(start.settings.markers.opening[0].token_ids), list(start.settings.closing))
    for token_id in opening:
        assert constraint.mask() is None
        constraint.take(token_id)
    thought = context.renderer.encoder.encode("well then", "x", any_length=True).ids
    for token_id in [*thought, *closing]:
        free = constraint.mask()
        assert free is not None
        refused = {i for i in range(3072) if not free.words()[i // 32] >> i % 32 & 1}
        assert refused == {2}, "only an end, which would leave no answer"
        constraint.take(token_id)
    mask = constraint.mask()
    assert mask is not None
    answer = context.renderer.encoder.encode("yes, 12.", "x", any_length=True).ids
    fork = constraint.copy()
    for token_id in answer:
        mask = constraint.mask()
        assert mask is not None and mask.words()[token_id // 32] >> token_id % 32 & 1
        constraint.take(token_id)
    constraint.take_back(len(answer))
    again, other = constraint.mask(), fork.mask()
    assert again is not None and other is not None
    assert (again.words() == other.words()).all()
