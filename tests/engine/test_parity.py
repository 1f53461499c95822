"""Every served architecture gives exactly the greedy tokens of ``transformers.generate``."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.generate import SamplingParams
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.engine.sequences.step import SamplingRow, SequenceStep, StepBatch
from ift_serve.modeling.decoder.model_loader import UnsupportedModelError, load_model
from tests.support.architectures import ARCHITECTURES, build

GREEDY = SamplingParams(temperature=0.0)
LENGTHS = (1, 3, 16, 17, 5, 40, 31, 64)
NEW = 24


def _prompts() -> list[list[int]]:
    rng = random.Random(5)
    return [[rng.randrange(3, 160) for _ in range(n)] for n in LENGTHS]


def _expected(path: Path, prompts: list[list[int]]) -> list[list[int]]:
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    answers = []
    for prompt in prompts:
        output = model.generate(
            torch.tensor([prompt]), max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, eos_token_id=None
        )
        answers.append(output[0, len(prompt) :].tolist())
    return answers


def _run_together(runner: ModelRunner, prompts: list[list[int]], chunk: int) -> list[list[int]]:
    """All requests in one batch: prompts in chunks of different sizes, then decoding, beside one another."""
    per = -(-(max(map(len, prompts)) + NEW) // runner.block_size)
    blocks = list(range(per * len(prompts)))
    random.Random(1).shuffle(blocks)
    tables = [blocks[i * per : (i + 1) * per] for i in range(len(prompts))]
    history = [list(p) for p in prompts]
    done = [0] * len(prompts)
    while any(len(h) < len(p) + NEW for h, p in zip(history, prompts, strict=True)):
        steps, owners = [], []
        for i, tokens in enumerate(history):
            if len(tokens) == len(prompts[i]) + NEW:
                continue
            part = tokens[done[i] : done[i] + chunk + i]
            last = done[i] + len(part) == len(tokens)
            row = SamplingRow(GREEDY, 0, 0, 0.0, tokens, len(prompts[i])) if last else None
            steps.append(SequenceStep(i, part, done[i], tables[i], b"", row))
            owners.append(i)
        result = runner.execute(StepBatch(steps, []))
        for i, step, sampled in zip(owners, steps, result.sampled, strict=True):
            done[i] += len(step.token_ids)
            if sampled is not None:
                history[i].append(sampled.token_id)
    return [h[len(p) :] for h, p in zip(history, prompts, strict=True)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_mixed_batch_equals_generate_one_by_one(name: str, tmp_path: Path) -> None:
    path = build(name, tmp_path)
    prompts = _prompts()
    runner = ModelRunner(EngineConfig(model=str(path), dtype="float32", total_blocks=80))
    assert _run_together(runner, prompts, chunk=7) == _expected(path, prompts)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
def test_reference_backend_equals_generate(name: str, tmp_path: Path) -> None:
    path = build(name, tmp_path)
    prompts = _prompts()[:3]
    config = EngineConfig(model=str(path), dtype="float32", total_blocks=80, attention_backend="reference")
    assert _run_together(ModelRunner(config), prompts, chunk=9) == _expected(path, prompts)


def test_llama_like_models_take_the_fused_path(tmp_path: Path) -> None:
    runner = ModelRunner(EngineConfig(model=str(build("llama", tmp_path)), dtype="float32", total_blocks=8))
    assert runner.description.attention_backend == "fused/cpu"


def test_bfloat16_logits_are_close_to_transformers(tmp_path: Path) -> None:
    path = build("llama", tmp_path, dtype=torch.bfloat16)
    prompt = _prompts()[5]
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    logits = model(torch.tensor([prompt])).logits[0].float()
    expected = torch.log_softmax(logits, -1)[torch.arange(len(prompt) - 1), prompt[1:]]
    runner = ModelRunner(EngineConfig(model=str(path), dtype="bfloat16", total_blocks=8))
    step = SequenceStep(0, prompt[:-1], 0, list(range(4)), b"", None, score_targets=prompt[1:])
    scored = runner.execute(StepBatch([step], [])).scored[0]
    assert scored is not None
    torch.testing.assert_close(torch.tensor(scored.log_probs), expected, atol=0.12, rtol=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_does_not_depend_on_the_batch_bit_for_bit(dtype: Any, tmp_path: Path) -> None:
    path = build("llama", tmp_path)
    runner = ModelRunner(EngineConfig(model=str(path), dtype=dtype, total_blocks=80))
    prompts = _prompts()

    def statistics(together: bool, chunk: int) -> list[list[float]]:
        found: list[list[float]] = []
        groups = [prompts] if together else [[p] for p in prompts]
        for group in groups:
            for i, prompt in enumerate(group):
                table = list(range(5 * i, 5 * i + 5))
                for start in range(0, len(prompt) - 1, chunk):
                    part = prompt[start : min(start + chunk, len(prompt) - 1)]
                    runner.execute(StepBatch([SequenceStep(i, part, start, table)], []))
            steps = [
                SequenceStep(
                    i, p[-1:], len(p) - 1, list(range(5 * i, 5 * i + 5)), b"", SamplingRow(GREEDY, 0, 0, 0.0, p, len(p))
                )
                for i, p in enumerate(group)
            ]
            for sampled in runner.execute(StepBatch(steps, [])).sampled:
                assert sampled is not None
                found.append([sampled.statistics.log_prob, sampled.statistics.entropy, sampled.statistics.p2])
        return found

    assert statistics(True, 100) == statistics(False, 100) == statistics(False, 6)


def test_unrouted_attention_is_refused_by_name(tmp_path: Path) -> None:
    config = transformers.GPTNeoConfig(
        hidden_size=32, num_layers=2, attention_types=[[["global", "local"], 1]], num_heads=4, vocab_size=64
    )
    transformers.GPTNeoForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="GPTNeo"):
        load_model(str(tmp_path))


def test_a_missing_model_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="nowhere"):
        load_model(str(tmp_path / "nowhere"))


def test_longrope_is_served_only_where_positions_cannot_change_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.Phi3Config(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=160,
        max_position_embeddings=256,
        pad_token_id=0,
        original_max_position_embeddings=64,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 8,
            "long_factor": [2.0] * 8,
            "original_max_position_embeddings": 64,
            "factor": 4.0,
        },
    )
    transformers.Phi3ForCausalLM(config).save_pretrained(tmp_path)
    assert load_model(str(tmp_path)).context_length == 64
    with pytest.raises(UnsupportedModelError, match="context_length 100"):
        load_model(str(tmp_path), context_length=100)
