"""Symptoms that users of other servers met in their samplers, each by its number, on a real model."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ift_serve.embedded import model_path
from ift_serve.engine.build import build_core
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams
from ift_serve.engine.protocol.reasoning import BestOf, Vote
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engine.protocol.sampling import AdaptiveTemperature, TargetProbability, TemperatureRule
from ift_serve.engine.sampling.sampler import Sampler, sampled_tokens
from ift_serve.engine.sampling.temperatures import Temperatures
from ift_serve.engine.sequences.step import KnownMask, SamplingRow, SequenceStep
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.errors import AdapterError
from ift_serve.modeling.adapter_format.reader import read_adapter
from tests.support.adapters import write_random
from tests.support.engine_driver import Answer, Driver, generate

BLOCKS = 96
PROMPT = list(range(40, 60))


@pytest.fixture(scope="module")
def core() -> EngineCore:
    core, _ = build_core(EngineConfig(model=str(model_path()), total_blocks=BLOCKS, threads=1, max_sequences=4))
    return core


def _ask(core: EngineCore, *requests: GenerateRequest) -> dict[str, Answer]:
    driver = Driver(core)
    driver.add(*requests)
    return driver.run()


def _row(temperature: float, **params: Any) -> SequenceStep:
    sampling = SamplingParams(temperature=temperature, **params)
    return SequenceStep(0, [0], 0, [0], sampling=SamplingRow(sampling, 5, 0, temperature, [1], 1))


def test_case_30_a_greedy_row_beside_masked_ones_is_the_argmax_without_a_nan() -> None:
    logits = torch.randn(3, 70, generator=torch.Generator().manual_seed(0))
    logits[1, ::2] = -math.inf
    rows = [_row(0.0, top_logprobs=20), _row(1.0, top_p=0.5), _row(0.0)]
    assert rows[2].sampling is not None
    rows[2].sampling.mask = KnownMask(np.array([0b1100, 0, 0], dtype=np.int32))
    found = sampled_tokens(Sampler(Temperatures()).run(logits, None, list(rows), [-1] * 3), list(rows))
    first, _, masked = (token for token in found if token is not None)
    assert first.token_id == int(logits[0].argmax()) and masked.token_id == 2 + int(logits[2, 2:4].argmax())
    for token in found:
        assert token is not None
        numbers = [getattr(token.statistics, name) for name in ("log_prob", "p1", "p2", "entropy", "temperature")]
        assert all(map(math.isfinite, numbers))


def test_case_31_a_temperature_near_nothing_is_finite_and_greedy(core: EngineCore) -> None:
    # Among logits that round to the same bf16 a draw is free, which none of the first twelve tokens is.
    options: dict[str, Any] = {"max_new_tokens": 12, "processed_log_probs": True}
    greedy = _ask(core, generate("a", PROMPT, temperature=0.0, **options))["a"]
    for temperature in (1e-6, 1e-30, 1e-45):
        cold = _ask(core, generate("a", PROMPT, temperature=temperature, **options))["a"]
        assert cold.tokens == greedy.tokens
        for output in cold.outputs:
            assert all(math.isfinite(one.log_prob) and one.processed[0] > -1e-3 for one in output.statistics)


def test_case_32_a_row_that_is_used_again_inherits_nothing(core: EngineCore) -> None:
    """Mask, bias, penalties and the average of adaptive-p of the one before."""
    plain = generate("plain", PROMPT, temperature=0.9, seed=4, max_new_tokens=16)
    fresh, _ = build_core(EngineConfig(model=str(model_path()), total_blocks=BLOCKS, threads=1, max_sequences=4))
    expected = _ask(fresh, plain)["plain"].tokens
    changed = {
        "logit_bias": dict.fromkeys(range(100, 900), -math.inf),
        "repetition_penalty": 1.8,
        "presence_penalty": 2.0,
        "target_probability": TargetProbability(target=0.1),
        "min_p": 0.05,
        "top_h": 0.4,
    }
    busy = [generate(f"busy {i}", PROMPT, temperature=1.2, seed=i, max_new_tokens=9, **changed) for i in range(4)]
    _ask(core, *busy)
    assert _ask(core, plain)["plain"].tokens == expected


def test_case_33_seeds_and_penalties_do_not_notice_who_leaves(core: EngineCore) -> None:
    mine = generate("mine", PROMPT, temperature=1.1, seed=8, max_new_tokens=30, repetition_penalty=1.4, top_p=0.9)
    alone = _ask(core, mine)["mine"].tokens
    others = [
        generate(f"other {i}", [50 + i, 60], temperature=1.0, seed=i, max_new_tokens=2 + 5 * i, presence_penalty=1.0)
        for i in range(3)
    ]
    assert _ask(core, others[0], mine, *others[1:])["mine"].tokens == alone


def test_case_34_one_seed_is_independent_noise_for_each_prompt_and_sibling(core: EngineCore) -> None:
    """Of a nearly flat distribution nothing but the noise decides."""
    flat = {"temperature": 10.0, "max_new_tokens": 6, "seed": 7}
    prompts = {str(i): [*PROMPT, 70 + i] for i in range(12)}
    answers = _ask(core, *(generate(name, ids, **flat) for name, ids in prompts.items()))
    assert len({tuple(answer.tokens[0][:2]) for answer in answers.values()}) == 12
    siblings = _ask(core, generate("n", PROMPT, candidates=8, **flat))["n"].tokens
    assert len({tuple(tokens) for tokens in siblings.values()}) == 8
    again = _ask(core, generate("n", PROMPT, candidates=8, **flat))["n"].tokens
    assert siblings == again


@pytest.mark.parametrize("filters", [{"top_k": 1}, {"top_p": 0.1}, {"logit_bias": {7: 40.0}}, {"top_h": 0.2}])
def test_case_35_what_adapts_reads_the_distribution_before_it_is_cut(filters: dict[str, Any]) -> None:
    logits = torch.randn(1, 300, generator=torch.Generator().manual_seed(2)) * 2
    entropy = float(torch.distributions.Categorical(logits=logits[0].double()).entropy())
    adaptive = AdaptiveTemperature(rule=TemperatureRule.ENTROPY)
    row = _row(1.3, adaptive=adaptive, **filters)
    (token,) = sampled_tokens(Sampler(Temperatures()).run(logits, None, [row], [-1]), [row])
    assert token is not None
    assert token.statistics.entropy == pytest.approx(entropy, abs=1e-5)
    assert token.statistics.temperature == pytest.approx(1.3 * 0.8 ** (0.1 / entropy), rel=1e-5)


@pytest.mark.parametrize("settings", [Vote(samples=8), BestOf(samples=6)], ids=["vote", "best_of"])
def test_case_38_siblings_that_are_cancelled_and_callers_that_leave_free_their_blocks_at_once(
    settings: Vote | BestOf, core: EngineCore
) -> None:
    def asked(name: str) -> GenerateRequest:
        strategy = str(settings.__struct_config__.tag)
        return generate(
            name, PROMPT, strategy=strategy, reasoning=settings, temperature=1.0, max_new_tokens=40, ignore_eos=False
        )

    driver = Driver(core)
    driver.add(asked("whole"))
    answer = driver.run()["whole"]
    stats = core.stats()
    assert stats.free_blocks + stats.cached_blocks == BLOCKS
    usage, conclusion = answer.usage, answer.outputs[-1].conclusion
    assert usage is not None and conclusion is not None
    # A draw that was under way when the vote was over is none of a branch's tokens; there is one a sibling at most.
    kept = sum(branch.tokens for branch in conclusion.branches)
    assert 0 <= usage.drawn_tokens - kept < len(conclusion.branches)
    driver.add(asked("gone"))
    for _ in range(5):
        driver.step()
    core.abort("gone")
    stats = core.stats()
    assert stats.free_blocks + stats.cached_blocks == BLOCKS and stats.running == 0
    assert not driver.answers["gone"].finished


class _Payload:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def test_case_39_pickled_weights_are_refused_unread(tmp_path: Path) -> None:
    metadata = BaseMetadata.of_directory(model_path())
    folder = write_random(tmp_path / "adapter", metadata, seed=1, targets=("q_proj",))
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(_Payload(tmp_path / "mark")))
    with pytest.raises(AdapterError, match=r"adapter_model\.bin: pickled"):
        read_adapter(folder, metadata)
    assert not (tmp_path / "mark").exists()


def test_case_39_a_strategy_s_settings_are_data(core: EngineCore) -> None:
    """A name that nobody registered is refused, however it is spelled; nothing is imported for it."""
    for name in ("os.system", "module:factory", "__import__"):
        failure = _ask(core, generate("a", PROMPT, strategy=name))["a"].failure
        assert failure is not None and failure.kind is FailureKind.INVALID and failure.field == "strategy"
