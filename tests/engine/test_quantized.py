"""Models with weights of 8 and 4 bits against transformers' own pass over weights that were rounded here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from ift_kernels.quantized_linear import runs_here
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.protocol.generate import SamplingParams
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.engine.sequences.step import SamplingRow, SequenceStep, StepBatch
from ift_serve.modeling.decoder.model_loader import UnsupportedModelError, load_model
from tests.support.architectures import build
from tests.support.rounded import assert_close_but_for_steps

pytestmark = pytest.mark.skipif(not runs_here(), reason="weights of 8 and 4 bits need AVX2")

PROMPT = [3 + (37 * i + i * i) % 150 for i in range(48)]


def _rounded(weight: Tensor, bits: int) -> Tensor:
    """As documented: groups of 32 inputs, scales and minimums in half precision."""
    groups = weight.double().view(weight.shape[0], -1, 32)
    if bits == 8:
        scale = (groups.abs().amax(-1, keepdim=True) / 127).half().double()
        return (torch.nan_to_num(groups / scale).round().clamp(-127, 127) * scale).view_as(weight).float()
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale, low = ((high - low) / 15).half().double(), low.half().double()
    return (torch.nan_to_num((groups - low) / scale).round().clamp(0, 15) * scale + low).view_as(weight).float()


def _round_inputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    groups = inputs[0].double().unflatten(-1, (-1, 32))
    step = groups.abs().amax(-1, keepdim=True) / 127
    return ((torch.nan_to_num(groups / step).round() * step).flatten(-2).float(), *inputs[1:])


@torch.inference_mode()
def _expected(path: Path, bits: int) -> Tensor:
    """Log-probabilities of the prompt's tokens by transformers."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head.weight is embeddings.weight
    embeddings.weight.data = _rounded(embeddings.weight, 8)
    for module in model.modules():
        if type(module) is nn.Linear:
            module.register_forward_pre_hook(_round_inputs)
            if module is not head:
                module.weight.data = _rounded(module.weight, bits)
    if tied:
        head.weight = embeddings.weight
    else:
        head.weight.data = _rounded(head.weight, 8)
    logits = model(torch.tensor([PROMPT])).logits[0]
    return torch.log_softmax(logits, -1)[torch.arange(len(PROMPT) - 1), PROMPT[1:]]


def _served(runner: ModelRunner, chunk: int) -> Tensor:
    found: list[float] = []
    for start in range(0, len(PROMPT) - 1, chunk):
        part, targets = PROMPT[start : start + chunk], PROMPT[start + 1 : start + chunk + 1]
        part = part[: len(targets)]
        step = SequenceStep(0, part, start, list(range(4)), b"", None, score_targets=targets)
        scored = runner.execute(StepBatch([step], [])).scored[0]
        assert scored is not None
        found += scored.log_probs
    return torch.tensor(found)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "gpt-neox", "llama-biased"])
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_it_computes_what_transformers_does_with_rounded_weights(name: str, weights: str, tmp_path: Path) -> None:
    path = build(name, tmp_path)
    runner = ModelRunner(EngineConfig(model=str(path), dtype="float32", weights=weights, total_blocks=8))  # type: ignore[arg-type]
    assert_close_but_for_steps(_served(runner, 48), _expected(path, int(weights[3:])))


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_a_row_does_not_depend_on_the_batch_bit_for_bit(weights: Any, tmp_path: Path) -> None:
    runner = ModelRunner(EngineConfig(model=str(build("llama", tmp_path)), weights=weights, total_blocks=32))
    assert torch.equal(_served(runner, 48), _served(runner, 5)) and torch.equal(_served(runner, 48), _served(runner, 1))

    def greedy(prompts: list[list[int]]) -> list[Any]:
        steps = []
        for index, prompt in enumerate(prompts):
            row = SamplingRow(SamplingParams(temperature=0.0), 0, 0, 0.0, prompt, len(prompt))
            steps.append(SequenceStep(index, prompt, 0, list(range(4 * index, 4 * index + 4)), b"", row))
        found = runner.execute(StepBatch(steps, [])).sampled
        return [
            (each.token_id, each.statistics.log_prob, each.statistics.entropy) for each in found if each is not None
        ]

    prompts = [PROMPT[start : start + 9 + start] for start in range(0, 12, 2)]
    assert greedy(prompts) == [found for prompt in prompts for found in greedy([prompt])]


def test_the_fingerprint_is_of_the_files_so_adapters_know_their_base(tmp_path: Path) -> None:
    path = str(build("llama", tmp_path))
    assert load_model(path, weights="int8").fingerprint == load_model(path).fingerprint


def test_bfloat16_models_compute_in_bfloat16(tmp_path: Path) -> None:
    path = build("llama", tmp_path, dtype=torch.bfloat16)
    runner = ModelRunner(EngineConfig(model=str(path), dtype="bfloat16", weights="int8", total_blocks=8))
    assert (runner.description.dtype, runner.description.weights) == ("bfloat16", "int8")
    torch.testing.assert_close(_served(runner, 48), _expected(path, 8), atol=0.12, rtol=0.05)


def test_what_cannot_have_so_few_bits_is_refused_by_name(tmp_path: Path) -> None:
    path = str(build("llama", tmp_path))
    with pytest.raises(UnsupportedModelError, match="weights: int8 computes in float32 or bfloat16"):
        load_model(path, weights="int8", dtype="float16")


def test_a_server_says_what_its_weights_are_so_that_kept_results_are_not_mixed(tmp_path: Path) -> None:
    path = str(build("llama", tmp_path))
    said = {load_model(path, weights=weights).weights for weights in ("auto", "int8", "int4")}
    assert said == {"stored", "int8", "int4"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device: cuda needs a GPU"):
        ModelRunner(EngineConfig(model=str(tmp_path), device="cuda", weights="int4"))
