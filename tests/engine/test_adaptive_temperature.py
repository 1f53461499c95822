"""Temperatures that heads and rules choose inside a step: what is used, what is reported, and who shares what."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.adapter import AdapterReply
from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams, TokenStatistics
from ift_serve.engine.protocol.sampling import AdaptiveTemperature, TargetProbability, TemperatureRule
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.weights import AdapterWeights
from ift_serve.modeling.components.config import ComponentsConfig
from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.components.tokens import TokenBatch
from tests.support.adapters import MemoryHost, random_weights, shape_of
from tests.support.engine_driver import Answer, Driver
from tests.support.models import tiny_llama
from tests.support.unchecked import unchecked_runner

PROMPT = [(17 * i + 5) % 280 + 6 for i in range(21)]
SEGMENTS = bytes([0, 1, 1, 1, 2, 2, 1, 1, 0, 1, 1, 0] + [0] * 9)
BARE = ComponentsConfig(temperature_head=8)
INSTRUCTED = ComponentsConfig(instruction_encoder=16, temperature_head=24)
WHOLE = ComponentsConfig(instruction_encoder=16, sequence_temperature=8)
GATED = ComponentsConfig(instruction_encoder=16, instruction_gate=4, reasoning_pathways=12, temperature_head=8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


def _weights(model: Path) -> dict[str, AdapterWeights]:
    metadata = BaseMetadata.of_directory(model)
    zero = random_weights(metadata, BARE, seed=4)
    for name in ("temperature_head.output.weight", "temperature_head.output.bias"):
        zero.extras[name].zero_()
    return {
        "bare": random_weights(metadata, BARE, seed=1),
        "instructed": random_weights(metadata, INSTRUCTED, seed=2, targets=("q_proj",)),
        "gated": random_weights(metadata, GATED, seed=3),
        "zero": zero,
        "whole": random_weights(metadata, WHOLE, seed=6),
        "headless": random_weights(metadata, seed=5, targets=("q_proj",)),
    }


def _driver(model: Path, **config: Any) -> Driver:
    settings = EngineConfig(
        model=str(model),
        dtype="float32",
        total_blocks=64,
        max_batch_tokens=64,
        **({"max_sequences": 16} | config),
    )
    # In the interpreter a start compares for longer than this test asks; test_triton_engine has the whole start.
    start = unchecked_runner if settings.attention_backend == "triton" else ModelRunner
    runner, weights = start(settings), _weights(model)
    driver = Driver(EngineCore(runner, settings, STRATEGIES, adapter_tensors=MemoryHost(runner.adapters, weights)))
    for name in weights:
        assert isinstance(driver.load(name, name), AdapterReply)
    return driver


def _request(name: str, adapter: str = "", *, seed: int = 3, tokens: int = 8, **sampling: Any) -> GenerateRequest:
    params = {"temperature": 0.8, "seed": seed, "max_new_tokens": tokens, "ignore_eos": True} | sampling
    return GenerateRequest(
        request_id=name, token_ids=PROMPT, segment_ids=SEGMENTS, adapter=adapter, sampling=SamplingParams(**params)
    )


def _statistics(answer: Answer) -> list[TokenStatistics]:
    assert answer.failure is None, answer.failure
    return [entry for output in answer.outputs for entry in output.statistics]


def _temperatures(answer: Answer) -> list[float]:
    return [entry.temperature for entry in _statistics(answer)]


def _batch() -> list[GenerateRequest]:
    """Rows with and without heads, of several adapters, greedy and drawn, by rule and by nothing."""
    head, rule = AdaptiveTemperature(), AdaptiveTemperature(rule=TemperatureRule.ENTROPY)
    return [
        _request("plain"),
        _request("whole", "whole", adaptive=head, seed=13),
        _request("bare", "bare", adaptive=head, seed=4),
        _request("instructed", "instructed", adaptive=head, seed=5),
        _request("gated", "gated", adaptive=head, seed=6),
        _request("unasked", "bare", seed=7),
        _request("bounded", "bare", adaptive=AdaptiveTemperature(min=0.7, max=0.75), seed=8),
        _request("scaled", "bare", adaptive=AdaptiveTemperature(scale=0.5), temperature=1.6, seed=4),
        _request("greedy", "bare", adaptive=head, temperature=0.0, seed=9),
        _request("rule", adaptive=rule, seed=10),
        _request("headless", "headless", adaptive=rule, temperature=1.3, seed=11),
        _request("targeted", target_probability=TargetProbability(target=0.3), min_p=0.05, seed=12),
    ]


@pytest.fixture(scope="module")
def together(model: Path) -> dict[str, Answer]:
    driver = _driver(model)
    driver.add(*_batch())
    return driver.run()


def _forward(model: Path, tokens: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states ``[T, d]`` before the head and logits ``[T, V]``, in float64 by transformers' own model."""
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    output = network(torch.tensor([tokens]), output_hidden_states=True)
    return output.hidden_states[-1][0], output.logits[0]


def _components(model: Path, name: str) -> InstructionComponents:
    weights = _weights(model)[name]
    components = InstructionComponents(weights.components, shape_of(BaseMetadata.of_directory(model)))
    components.load_state_dict(weights.extras)
    return components.double().requires_grad_(False)


def test_a_head_predicts_what_its_module_predicts_in_float64(model: Path, together: dict[str, Answer]) -> None:
    """Each token of the answer, from a full forward pass over all before it."""
    components, answer = _components(model, "bare"), together["bare"]
    tokens = PROMPT + answer.tokens[0]
    with torch.no_grad():
        hidden, logits = _forward(model, tokens)
        log_probs = torch.log_softmax(logits, -1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        first, second = log_probs.exp().topk(2).values.unbind(-1)
        factors = components.temperature(hidden, None, torch.stack((entropy, first - second), -1))
    expected = 0.8 * factors[len(PROMPT) - 1 : -1]
    found = torch.tensor(_temperatures(answer))
    torch.testing.assert_close(found, expected.float(), rtol=2e-5, atol=0)
    assert found.max() - found.min() > 0.01, "the temperature varies from token to token"


def test_the_pooled_instruction_has_its_part(model: Path) -> None:
    """The same prompt with other segments has another temperature, with an adapter whose head sees c and only there."""
    found = {}
    for name in ("instructed", "bare"):
        driver = _driver(model)
        for number, segments in enumerate((SEGMENTS, bytes([0] * 4 + [1] * 8 + [0] * 9))):
            request = _request(f"{name}{number}", name, adaptive=AdaptiveTemperature(), tokens=1)
            request = GenerateRequest(
                request_id=request.request_id,
                token_ids=PROMPT,
                segment_ids=segments,
                adapter=name,
                sampling=request.sampling,
            )
            driver.add(request)
        found[name] = [_temperatures(answer)[0] for answer in driver.run().values()]
    assert found["instructed"][0] != found["instructed"][1]
    assert found["bare"][0] == found["bare"][1]


def test_a_row_is_the_same_alone_as_in_company(model: Path, together: dict[str, Answer]) -> None:
    for request in _batch():
        driver = _driver(model)
        driver.add(request)
        alone = driver.run()[request.request_id]
        assert alone.tokens == together[request.request_id].tokens, request.request_id
        assert _statistics(alone) == _statistics(together[request.request_id]), request.request_id


def test_one_temperature_for_a_whole_answer(model: Path, together: dict[str, Answer]) -> None:
    """From the pooled instruction of base embeddings alone, the same for every token."""
    components = _components(model, "whole")
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    chosen = torch.tensor([token for token, segment in zip(PROMPT, SEGMENTS, strict=True) if segment == 1])
    tokens = TokenBatch(chosen, torch.ones(len(chosen), dtype=torch.uint8), torch.zeros_like(chosen), 1)
    with torch.no_grad():
        c = components.instruction_vector(network.get_input_embeddings()(chosen), tokens)
        assert c is not None
        expected = 0.8 * float(components.initial_temperature(c)[0])
    (found,) = set(_temperatures(together["whole"]))
    assert found == pytest.approx(expected, rel=1e-5)
    assert abs(expected - 0.8) > 0.01


def test_what_does_not_ask_is_as_before(together: dict[str, Answer]) -> None:
    assert set(_temperatures(together["plain"])) == {0.8}
    assert set(_temperatures(together["unasked"])) == {0.8}


def test_bounds_and_scale(together: dict[str, Answer]) -> None:
    assert all(0.7 - 1e-7 <= temperature <= 0.75 for temperature in _temperatures(together["bounded"]))
    assert _temperatures(together["scaled"]) == _temperatures(together["bare"]), "half of twice the temperature"
    assert together["scaled"].tokens == together["bare"].tokens


def test_greedy_stays_greedy(model: Path, together: dict[str, Answer]) -> None:
    driver = _driver(model)
    driver.add(_request("greedy", temperature=0.0))
    assert together["greedy"].tokens == driver.run()["greedy"].tokens
    assert set(_temperatures(together["greedy"])) == {0.0}


def test_a_head_of_zeros_is_no_head_bit_for_bit(model: Path) -> None:
    driver = _driver(model)
    driver.add(
        _request("with", "zero", adaptive=AdaptiveTemperature(), temperature=0.5),
        _request("without", temperature=0.5),
    )
    answers = driver.run()
    assert _statistics(answers["with"]) == _statistics(answers["without"])
    assert answers["with"].tokens == answers["without"].tokens


def test_the_rule_by_entropy_uses_the_entropy_that_is_reported(together: dict[str, Answer]) -> None:
    for name, initial in (("rule", 0.8), ("headless", 1.3)):
        for entry in _statistics(together[name]):
            assert entry.temperature == pytest.approx(initial * 0.8 ** (0.1 / entry.entropy), rel=1e-6)


def test_adapters_that_carry_only_heads_share_the_bases_cache(model: Path) -> None:
    """A prompt computed by the base serves such an adapter, and the other way round; LoRA and gates share nothing."""
    cached = {}
    for first, second in (("", "bare"), ("bare", ""), ("", "instructed"), ("", "gated")):
        driver = _driver(model)
        driver.add(_request("first", first, tokens=1))
        driver.run()
        driver.add(_request("second", second, tokens=1))
        usage = driver.run()["second"].usage
        assert usage is not None
        cached[first, second] = usage.cached_tokens
    assert cached == {("", "bare"): 16, ("bare", ""): 16, ("", "instructed"): 0, ("", "gated"): 0}


@pytest.mark.parametrize(
    ("sampling", "adapter", "field"),
    [
        ({"adaptive": AdaptiveTemperature()}, "", "sampling.adaptive.rule"),
        ({"adaptive": AdaptiveTemperature()}, "headless", "sampling.adaptive.rule"),
        ({"adaptive": AdaptiveTemperature(min=2, max=1)}, "bare", "sampling.adaptive.min"),
        ({"adaptive": AdaptiveTemperature(scale=0)}, "bare", "sampling.adaptive.scale"),
        ({"adaptive": AdaptiveTemperature(rule=TemperatureRule.ENTROPY, base=1)}, "", "sampling.adaptive.base"),
        ({"adaptive": AdaptiveTemperature(rule=TemperatureRule.ENTROPY, theta=0)}, "", "sampling.adaptive.theta"),
        ({"adaptive": AdaptiveTemperature(scale=math.nan)}, "bare", "sampling.adaptive.scale"),
        ({"target_probability": TargetProbability(target=1.5)}, "", "sampling.target_probability.target"),
        ({"target_probability": TargetProbability(target=0.5, decay=1)}, "", "sampling.target_probability.decay"),
        ({"top_h": 1.5}, "", "sampling.top_h"),
        ({"top_n_sigma": -1.0}, "", "sampling.top_n_sigma"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(
    driver: Driver, sampling: dict[str, Any], adapter: str, field: str
) -> None:
    name = f"{field} {adapter}"
    driver.add(_request(name, adapter, **sampling))
    failure = driver.run()[name].failure
    assert failure is not None
    assert failure.field == field


@pytest.fixture(scope="module")
def driver(model: Path) -> Driver:
    return _driver(model)


def test_biases_that_leave_nothing_fail_their_request_alone(driver: Driver) -> None:
    nothing = dict.fromkeys(range(290), -math.inf)
    driver.add(_request("none", logit_bias=nothing), _request("beside"))
    answers = driver.run()
    failure = answers["none"].failure
    assert failure is not None
    assert "leave no token" in failure.message
    assert len(answers["beside"].tokens[0]) == 8


def test_the_gpu_path_draws_the_same(model: Path, together: dict[str, Answer]) -> None:
    """Through the replayed decode steps and the Triton kernels, in the interpreter."""
    pytest.importorskip("triton", reason="Triton is there on Linux only")
    driver = _driver(model, attention_backend="triton", max_sequences=2)
    driver.add(_request("instructed", "instructed", adaptive=AdaptiveTemperature(), seed=5, tokens=3))
    answer = driver.run()["instructed"]
    assert answer.tokens[0] == together["instructed"].tokens[0][:3]
    assert _temperatures(answer) == pytest.approx(_temperatures(together["instructed"])[:3], rel=1e-4)
