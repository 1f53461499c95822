"""Whatever is guessed, an answer is bit for bit the one of an engine that guesses nothing.

Two engines over one model: one computes a token a step, the other drafts what the first has drawn, with errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.embedded import model_path
from ift_serve.engine.build import build_core
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.drafting.drafts import Drafts
from ift_serve.engine.drafting.step_costs import StepCosts
from ift_serve.engine.protocol.adapter import AdapterReply
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
    Trace,
    Vote,
)
from ift_serve.engine.protocol.results import RequestUsage
from ift_serve.engine.protocol.sampling import AdaptiveTemperature, TargetProbability, TemperatureRule
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.engine.scheduling.draft_steps import DraftSteps
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.weights import AdapterWeights
from ift_serve.modeling.components.config import ComponentsConfig
from ift_serve.text.prompt import PromptRenderer
from tests.support.adapters import EVERYTHING, MemoryHost, random_weights
from tests.support.architectures import build
from tests.support.engine_driver import Answer, Driver, generate
from tests.support.hindsight import Hindsight

LAST_LINE = AnswerSpan(kind=AnswerKind.LAST_LINE)
TYPED: dict[str, Any] = {"open_marker": "<think>", "close_marker": "</think>"}
KINDS: dict[str, Reasoning | None] = {
    "plain": None,
    "branch": Branch(width=4, span=LAST_LINE),
    "asked": Branch(width=3, span=AnswerSpan(kind=AnswerKind.CONTINUATION, continuation_tokens=5)),
    "vote": Vote(samples=5, span=LAST_LINE),
    "low": Vote(samples=5, stop="all", span=LAST_LINE, low_confidence=LowConfidence(warm_up=2, window=2, keep=0.5)),
    "thinking vote": Vote(samples=3, span=LAST_LINE, trace=Trace(budget=8, minimum=3, **TYPED)),
    "best": BestOf(samples=3),
    "trace": Trace(
        budget=14, minimum=3, message=" So:", early_exit=EarlyExit(rule="confidence", threshold=0.2, trial_tokens=3),
        **TYPED,
    ),
}  # fmt: skip
FORMS = {
    "regex": OutputFormat(kind="regex", text=r"(yes|no), [0-9]{1,3}\. ([a-z]+ ){1,4}end"),
    "json": OutputFormat(
        kind="json_schema",
        text='{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["red", "blue"]}},'
        ' "required": ["a", "b"], "additionalProperties": false}',
    ),
}
FORMED = ("plain", "vote", "thinking vote", "best", "trace")
"""Kinds that a form goes with."""
PARAMETERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "top": {"top_p": 0.9, "top_k": 30, "min_p": 0.01},
    "shapes": {"top_n_sigma": 1.5, "top_h": 0.6},
    "p-less": {"p_less": True},
    "penalties": {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.4},
    "biases": {"logit_bias": {5: 2.0, 9: -4.0, 40: 1.0}, "frequency_penalty": 0.7},
    "entropy": {"adaptive": AdaptiveTemperature(rule=TemperatureRule.ENTROPY)},
    "target": {"target_probability": TargetProbability(target=0.4), "min_p": 0.02},
    "told": {"top_logprobs": 5, "processed_log_probs": True},
}


def told(answer: Answer) -> Any:
    """All that a caller is told but for times and what was drafted."""
    assert answer.failure is None, answer.failure
    tokens: dict[int, list[Any]] = {}
    for output in answer.outputs:
        top = output.top_log_probs or [[] for _ in output.token_ids]
        entries = zip(output.token_ids, output.statistics, top, strict=True)
        tokens.setdefault(output.candidate, []).extend(entries)
    usage = answer.usage
    assert usage is not None
    counts = msgspec.structs.replace(
        usage, drafted_tokens=0, accepted_tokens=0, queue_seconds=0.0, first_token_seconds=0.0, preemptions=0,
        cached_tokens=0,
    )  # fmt: skip
    return tokens, answer.reasons, answer.outputs[-1].conclusion, counts


def ask(core: EngineCore, request: GenerateRequest) -> Answer:
    driver = Driver(core)
    driver.add(request)
    return driver.run()[request.request_id]


def usage_of(answer: Answer) -> RequestUsage:
    assert answer.usage is not None
    return answer.usage


@dataclass
class Engines:
    """``plain`` drafts nothing; ``drafting`` is as roomy, ``tight`` is short of rows, blocks and budget."""

    plain: EngineCore
    drafting: EngineCore
    tight: EngineCore
    hindsight: Hindsight
    renderer: PromptRenderer


def embedded_core(drafts: Drafts | None, **options: Any) -> EngineCore:
    core, _ = build_core(EngineConfig(model=str(model_path()), threads=1, **options))
    core._drafts = drafts
    core._scheduler._drafts = None if drafts is None else DraftSteps(drafts, core._tables)
    return core


@pytest.fixture(scope="module")
def engines() -> Engines:
    hindsight = Hindsight()
    plain = embedded_core(None, total_blocks=256, prefix_caching=False)
    hindsight.watch(plain)
    drafting = embedded_core(hindsight, total_blocks=256)
    tight = embedded_core(hindsight, total_blocks=22, max_sequences=6, max_batch_tokens=24)
    renderer = PromptRenderer.from_pretrained(str(model_path()))
    return Engines(plain, drafting, tight, hindsight, renderer)


def request_of(
    engines: Engines, name: str, kind: str, parameters: str, form: str, seed: int, **options: Any
) -> GenerateRequest:
    reasoning = KINDS[kind]
    prompt = engines.renderer.instruction(f"Name {seed % 5 + 1} colours and say which one you like.")
    is_cold = isinstance(reasoning, Branch)
    sampling = {} if is_cold else PARAMETERS[parameters]
    return generate(
        name,
        prompt.token_ids,
        segment_ids=prompt.segment_ids,
        end_ids=[engines.renderer.tokenizer.eos_token_id],
        strategy="sample" if reasoning is None else str(reasoning.__struct_config__.tag),
        reasoning=reasoning,
        output=FORMS.get(form) if kind in FORMED else None,
        **(
            {"max_new_tokens": 24, "seed": seed, "ignore_eos": False, "temperature": 0.0 if is_cold else 0.9}
            | sampling
            | options
        ),
    )


ASKED = st.tuples(
    st.sampled_from(sorted(KINDS)),
    st.sampled_from(sorted(PARAMETERS)),
    st.sampled_from(["", "", *FORMS]),
    st.integers(0, 2**40),
    st.sampled_from([0.0, 0.6, 1.0, 1.5]),
)


def asked_of(engines: Engines, name: str, asked: tuple[str, str, str, int, float]) -> GenerateRequest:
    kind, parameters, form, seed, temperature = asked
    warm = not isinstance(KINDS[kind], Branch)
    several = kind in ("plain", "trace")
    options: dict[str, Any] = {"candidates": 1 + seed % 3} if several else {}
    if warm and (kind in ("plain", "trace") or temperature > 0):
        options["temperature"] = temperature
    if kind == "plain" and seed % 4 == 0:
        options["reasoning_temperature"] = 0.3
    if seed % 5 == 0:
        options["stop"] = [" and", "e"]
    return request_of(engines, name, kind, parameters, form, seed, **options)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=ASKED)
def test_an_answer_is_the_one_without_drafts_bit_for_bit(
    asked: tuple[str, str, str, int, float], engines: Engines
) -> None:
    request = asked_of(engines, "a", asked)
    plain = ask(engines.plain, request)
    if plain.failure is not None:
        assert ask(engines.drafting, request).failure == plain.failure
        return
    assert told(ask(engines.drafting, request)) == told(plain)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(ASKED, min_size=2, max_size=4), leaves=st.integers(0, 40))
def test_so_it_is_in_company_that_is_short_of_everything(
    asked: list[tuple[str, str, str, int, float]], leaves: int, engines: Engines
) -> None:
    """One of them leaves, in the middle of whatever is going on."""
    requests = [asked_of(engines, f"{place}", one) for place, one in enumerate(asked)]
    alone = [ask(engines.plain, request) for request in requests]
    driver = Driver(engines.tight)
    driver.add(*requests)
    for _ in range(leaves):
        if engines.tight.has_work():
            driver.step()
    engines.tight.abort("0")
    answers = driver.run()
    for request, plain in list(zip(requests, alone, strict=True))[1:]:
        answer = answers[request.request_id]
        if plain.failure is None:
            assert told(answer) == told(plain), request
        else:
            assert answer.failure == plain.failure
    stats = engines.tight.stats()
    assert stats.free_blocks + stats.cached_blocks == 22


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drafted(kind: str, engines: Engines) -> None:
    """The comparison above would hold of an engine that never drafts."""
    accepted = 0
    for seed in range(3):
        request = request_of(engines, "a", kind, "plain", "", seed, **({} if kind != "plain" else {"candidates": 3}))
        plain = ask(engines.plain, request)
        answer = ask(engines.drafting, request)
        assert told(answer) == told(plain)
        accepted += usage_of(answer).accepted_tokens
    assert accepted > 0


def test_forms_are_drafted_and_what_they_forbid_does_no_harm(engines: Engines) -> None:
    accepted = 0
    for name in FORMS:
        for seed in range(3):
            request = request_of(engines, "a", "plain", "penalties", name, seed, max_new_tokens=40)
            answer = ask(engines.drafting, request) if ask(engines.plain, request) else None
            assert answer is not None and told(answer) == told(ask(engines.plain, request))
            accepted += usage_of(answer).accepted_tokens
    assert accepted > 5


def test_draws_that_depend_on_the_draw_before_are_not_drafted(engines: Engines) -> None:
    request = request_of(engines, "a", "plain", "target", "", 3)
    plain, answer = ask(engines.plain, request), ask(engines.drafting, request)
    assert told(answer) == told(plain) and usage_of(answer).drafted_tokens == 0


def test_an_engine_that_is_configured_to_guess_saves_steps_and_changes_nothing(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a step takes here decides nothing: guesses are made as on a machine on which rows cost little.
    monkeypatch.setattr(StepCosts, "note", lambda self, rows, seconds, sequences: None)
    core, _ = build_core(EngineConfig(model=str(model_path()), threads=1, total_blocks=256, speculation="lookup"))
    for temperature in (0.0, 0.7):
        request = request_of(
            engines, "a", "plain", "plain", "", 2, max_new_tokens=120, ignore_eos=True, temperature=temperature
        )
        driver = Driver(core)
        driver.add(request)
        answer = driver.run()["a"]
        assert told(answer) == told(ask(engines.plain, request))
        assert driver.steps == 120 - usage_of(answer).accepted_tokens
        assert usage_of(answer).drafted_tokens >= usage_of(answer).accepted_tokens
        if temperature == 0.0:
            assert usage_of(answer).accepted_tokens > 0, "a greedy answer of a small model repeats itself"


# Adapters

PROMPT = [(17 * i + 5) % 150 + 6 for i in range(21)]
SEGMENTS = bytes([0, 1, 1, 1, 2, 2, 1, 1, 0, 1, 1, 0] + [0] * 9)
PLAIN_PRODUCTS = {"two_stream": 0, "reasoning_pathways": 0}
HEADS = ComponentsConfig(instruction_encoder=16, temperature_head=8, sequence_temperature=8)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[EngineCore, EngineCore, Hindsight]:
    path = build("llama", tmp_path_factory.mktemp("model"))
    metadata = BaseMetadata.of_directory(path)
    weights: dict[str, AdapterWeights] = {
        "lora": random_weights(metadata, seed=1, targets=("q_proj", "v_proj", "up_proj", "down_proj")),
        "heads": random_weights(metadata, HEADS, seed=2),
        "gated": random_weights(
            metadata, EVERYTHING.model_copy(update=PLAIN_PRODUCTS), seed=3, targets=("q_proj", "o_proj")
        ),
        "products": random_weights(metadata, EVERYTHING, seed=4),
    }
    hindsight = Hindsight(1)

    def core(drafts: Drafts | None) -> EngineCore:
        config = EngineConfig(model=str(path), dtype="float32", total_blocks=96, max_batch_tokens=64, max_sequences=12)
        runner = ModelRunner(config)
        assert runner.has_independent_rows
        found = EngineCore(
            runner, config, STRATEGIES, adapter_tensors=MemoryHost(runner.adapters, weights), drafts=drafts
        )
        driver = Driver(found)
        for name in weights:
            assert isinstance(driver.load(name, name), AdapterReply)
        return found

    plain = core(None)
    hindsight.watch(plain)
    return plain, core(hindsight), hindsight


def adapted_requests(seed: int) -> list[GenerateRequest]:
    head, rule = AdaptiveTemperature(), AdaptiveTemperature(rule=TemperatureRule.ENTROPY)
    common: dict[str, Any] = {"segment_ids": SEGMENTS, "max_new_tokens": 20, "seed": seed}
    return [
        generate("base", PROMPT, temperature=1.0, **common),
        generate("lora", PROMPT, adapter="lora", temperature=0.0, repetition_penalty=1.2, **common),
        generate("heads", PROMPT, adapter="heads", temperature=0.8, adaptive=head, candidates=2, **common),
        generate("gated", PROMPT, adapter="gated", temperature=1.0, adaptive=head, top_logprobs=3, **common),
        generate("ruled", PROMPT, adapter="gated", temperature=1.2, adaptive=rule, **common),
        generate("products", PROMPT, adapter="products", temperature=0.0, **common),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_adapters_side_by_side_answer_as_without_drafts(
    seed: int, adapted: tuple[EngineCore, EngineCore, Hindsight]
) -> None:
    plain, drafting, _ = adapted
    requests = adapted_requests(seed)
    expected = {request.request_id: told(ask(plain, request)) for request in requests if request.adapter != "products"}
    driver = Driver(drafting)
    driver.add(*requests)
    answers = driver.run()
    for name, answer in expected.items():
        assert told(answers[name]) == answer, name
        assert usage_of(answers[name]).accepted_tokens > 0, name


def test_an_adapter_whose_rows_depend_on_the_batch_is_not_drafted(
    adapted: tuple[EngineCore, EngineCore, Hindsight],
) -> None:
    _, drafting, _ = adapted
    answer = ask(drafting, adapted_requests(0)[-1])
    assert answer.failure is None and usage_of(answer).drafted_tokens == 0


# Architectures


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "phi3", "gpt-neox"])
def test_rows_that_follow_one_another_are_computed_as_each_alone(name: str, tmp_path: Path) -> None:
    runner = ModelRunner(EngineConfig(model=str(build(name, tmp_path)), dtype="float32", total_blocks=16))
    assert runner.has_independent_rows


@pytest.mark.parametrize("name", ["phimoe", "deepseek-v3"])
def test_a_model_with_products_of_its_own_is_not_drafted(name: str, tmp_path: Path) -> None:
    config = EngineConfig(model=str(build(name, tmp_path)), dtype="float32", total_blocks=16, speculation="lookup")
    core, _ = build_core(config)
    assert core._drafts is None
