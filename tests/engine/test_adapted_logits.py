"""What is served with an adapter, against PEFT's own forward pass and against the components on transformers' model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.adapter import AdapterReply
from ift_serve.engine.protocol.generate import GenerateRequest, SamplingParams
from ift_serve.engine.protocol.score import ScoreRequest
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.components.adaptation import SoloAdaptation
from ift_serve.modeling.components.tokens import TokenBatch
from ift_serve.modeling.decoder.flat_batch import GeometryProbe
from ift_serve.modeling.decoder.hooks import attach
from ift_serve.modeling.decoder.model_loader import load_model
from ift_serve.modeling.multi_adapter.magnitudes import BatchMagnitudes, OutputScale
from tests.support.adapters import EVERYTHING, MemoryHost, random_components, random_weights
from tests.support.architectures import build
from tests.support.engine_driver import Driver
from tests.support.unchecked import unchecked_runner

TEXT = [(17 * i + 5) % 150 + 6 for i in range(23)]
SEGMENTS = bytes([0, 1, 1, 1, 2, 2, 1, 1, 0] + [3] * 14)

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("llama", {"r": 4, "target_modules": [*ATTENTION, *MLP]}),
    "one-module": ("llama-biased", {"r": 3, "target_modules": ["v_proj"]}),
    "rslora": ("qwen3", {"r": 9, "lora_alpha": 5, "use_rslora": True, "target_modules": ["q_proj", "up_proj"]}),
    "patterns": (
        "llama",
        {
            "r": 4,
            "target_modules": [*ATTENTION, "down_proj"],
            "rank_pattern": {"q_proj": 8, "layers.1.mlp.down_proj": 2},
            "alpha_pattern": {"v_proj": 30, "layers.0.self_attn.k_proj": 1},
        },
    ),
    "regex": ("llama", {"r": 4, "target_modules": r".*layers\.[01].*(q|v)_proj"}),
    "all-linear": ("gemma2", {"r": 4, "target_modules": "all-linear"}),
    "neox": ("gpt-neox", {"r": 4, "target_modules": ["query_key_value", "dense"]}),
    "embeddings-and-head": ("llama", {"r": 4, "target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "modules-to-save": ("qwen2", {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "embedding-saved": ("qwen3", {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
    "tokens": ("llama", {"r": 4, "target_modules": ["q_proj"], "trainable_token_indices": [20, 7, 56]}),
    "tokens-of-head": ("llama", {"r": 4, "target_modules": ["q_proj"], "trainable_token_indices": {"lm_head": [7]}}),
    "tied-tokens": ("llama-biased", {"r": 4, "target_modules": ["q_proj"], "trainable_token_indices": [20, 7, 56]}),
    "tied-embeddings": ("llama-biased", {"r": 4, "target_modules": ["embed_tokens"]}),
    "tied-head": ("llama-biased", {"r": 4, "target_modules": ["lm_head"]}),
    "tied-both-saved": (
        "llama-biased",
        {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    ),
    "scaled-embeddings": ("gemma2", {"r": 4, "target_modules": ["q_proj", "embed_tokens"]}),
    "scaled-embeddings-saved": ("gemma2", {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
    "scaled-tokens": ("gemma2", {"r": 4, "target_modules": ["q_proj"], "trainable_token_indices": [20, 7, 56]}),
    "capped-head": ("gemma2", {"r": 4, "target_modules": ["q_proj", "lm_head"]}),
    "capped-head-saved": ("gemma2", {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "divided-head": ("granite", {"r": 4, "target_modules": ["embed_tokens", "lm_head"]}),
    "dora": ("llama", {"r": 4, "use_dora": True, "target_modules": [*ATTENTION, *MLP]}),
    "dora-biased": ("llama-biased", {"r": 4, "use_dora": True, "target_modules": "all-linear"}),
    "dora-one-part": ("qwen2", {"r": 3, "use_dora": True, "target_modules": ["v_proj", "gate_proj"]}),
    "dora-rslora": (
        "qwen3",
        {"r": 9, "lora_alpha": 5, "use_rslora": True, "use_dora": True, "target_modules": ATTENTION},
    ),
    "dora-patterns": (
        "llama",
        {
            "r": 4,
            "use_dora": True,
            "target_modules": [*ATTENTION, "down_proj"],
            "rank_pattern": {"q_proj": 8, "layers.1.mlp.down_proj": 2},
            "alpha_pattern": {"v_proj": 30},
        },
    ),
    "dora-routed": ("gemma2", {"r": 4, "use_dora": True, "target_modules": "all-linear"}),
    "dora-neox": ("gpt-neox", {"r": 4, "use_dora": True, "target_modules": ["query_key_value", "dense"]}),
    "dora-embeddings-and-head": (
        "llama",
        {"r": 4, "use_dora": True, "target_modules": ["embed_tokens", "lm_head", "q_proj"]},
    ),
    "dora-scaled-embeddings": ("gemma2", {"r": 4, "use_dora": True, "target_modules": ["q_proj", "embed_tokens"]}),
    "dora-tied-head": ("llama-biased", {"r": 4, "use_dora": True, "target_modules": ["lm_head"]}),
    "dora-capped-head": ("gemma2", {"r": 4, "use_dora": True, "target_modules": ["q_proj", "lm_head"]}),
    "dora-and-saved-head": (
        "qwen2",
        {"r": 4, "use_dora": True, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ),
    "divided-head-saved": ("granite", {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "norms": ({"modules_to_save": ["norm"]}, "input_layernorm.weight: modules_to_save is served for the embeddings"),
}


def _saved(path: Path, options: dict[str, Any], output: Path) -> PeftModel:
    """An adapter that PEFT made, every tensor of it random, and the model with it."""
    torch.manual_seed(3)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(path), LoraConfig(task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (0.2 if "lora" in name else 0.05))
    model.save_pretrained(output)
    return model.eval()


def _served(path: Path, adapter: str, host_weights: dict[str, Any] | None = None, segments: bytes = b"") -> list[float]:
    config = EngineConfig(model=str(path), dtype="float32", total_blocks=8, max_batch_tokens=10, max_sequences=4)
    runner = unchecked_runner(config)  # the models themselves are compared by test_parity
    host: Any = runner.adapters if host_weights is None else MemoryHost(runner.adapters, host_weights)
    driver = Driver(EngineCore(runner, config, STRATEGIES, adapter_tensors=host))
    reply = driver.load("a", adapter)
    assert isinstance(reply, AdapterReply), reply
    both = [
        ScoreRequest(request_id=name, token_ids=TEXT[:9], continuations=[TEXT[9:]], segment_ids=segments, adapter=name)
        for name in ("", "a")
    ]
    driver.add(both[0])
    driver.add(both[1])
    answers = driver.run()
    score, base = answers["a"].score, answers[""].score
    assert score is not None and base is not None
    assert base.scores != score.scores, "the adapter changes nothing"
    return score.scores[0].token_log_probs


def _log_probs(logits: torch.Tensor) -> list[float]:
    found = torch.log_softmax(logits.double(), -1)[torch.arange(8, len(TEXT) - 1), torch.tensor(TEXT[9:])]
    return found.tolist()


@pytest.mark.parametrize("variant", VARIANTS)
def test_pefts_adapters_give_pefts_logits(variant: str, tmp_path: Path) -> None:
    architecture, options = VARIANTS[variant]
    path = build(architecture, tmp_path / "base")
    model = _saved(path, options, tmp_path / "adapter")
    with torch.inference_mode():
        expected = _log_probs(model(torch.tensor([TEXT])).logits[0])
    assert _served(path, str(tmp_path / "adapter")) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("backend", ["reference", "cpu", "triton"])
@pytest.mark.parametrize("architecture", ["llama-biased", "gemma2"])
def test_decomposed_plain_and_no_adapters_share_a_batch(architecture: str, backend: Any, tmp_path: Path) -> None:
    # A layer with a window and one without; more would take the interpreter the same way again.
    path = build(architecture, tmp_path / "base", num_hidden_layers=2)
    options: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    kinds = {"": None, "plain": {}, "dora": {"use_dora": True}, "other": {"use_dora": True, "lora_alpha": 20}}
    config = EngineConfig(
        model=str(path),
        dtype="float32",
        total_blocks=24,
        max_batch_tokens=24,
        max_sequences=4,
        attention_backend=backend,
    )
    runner = unchecked_runner(config) if backend == "triton" else ModelRunner(config)
    driver = Driver(EngineCore(runner, config, STRATEGIES, adapter_tensors=runner.adapters))
    expected = {}
    for name, kind in kinds.items():
        model: Any = AutoModelForCausalLM.from_pretrained(path)
        if kind is not None:
            model = _saved(path, {**options, **kind}, tmp_path / name)
            assert isinstance(driver.load(name, str(tmp_path / name)), AdapterReply)
        with torch.inference_mode():
            expected[name] = _log_probs(model(torch.tensor([TEXT])).logits[0])
    for name in kinds:
        driver.add(ScoreRequest(request_id=f"s{name}", token_ids=TEXT[:9], continuations=[TEXT[9:]], adapter=name))
    answers = driver.run()
    for name in kinds:
        score = answers[f"s{name}"].score
        assert score is not None
        assert score.scores[0].token_log_probs == pytest.approx(expected[name], abs=2e-5), name


def test_forks_of_a_decomposed_adapter_are_what_each_is_alone(tmp_path: Path) -> None:
    path = build("llama", tmp_path / "base")
    model = _saved(path, {"r": 4, "use_dora": True, "target_modules": [*ATTENTION, *MLP]}, tmp_path / "a")
    config = EngineConfig(model=str(path), dtype="float32", total_blocks=24, max_batch_tokens=10, max_sequences=4)
    runner = ModelRunner(config)
    driver = Driver(EngineCore(runner, config, STRATEGIES, adapter_tensors=runner.adapters))
    assert isinstance(driver.load("a", str(tmp_path / "a")), AdapterReply)
    sampling = SamplingParams(temperature=0.0, max_new_tokens=6, ignore_eos=True, candidates=3)
    driver.add(GenerateRequest(request_id="g", token_ids=TEXT, adapter="a", sampling=sampling))
    found = driver.run()["g"].tokens
    with torch.inference_mode():
        ids = TEXT.copy()
        for _ in range(6):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert [found[index] for index in range(3)] == [ids[len(TEXT) :]] * 3


def test_a_base_only_batch_carries_nothing_of_resident_decomposed_adapters(tmp_path: Path) -> None:
    scales = {3: {0: OutputScale(torch.ones(4), None)}}
    assert BatchMagnitudes.of_rows(np.array([0, 1, 1], dtype=np.int32), scales, torch.device("cpu")) is None


@pytest.mark.parametrize("kind", REFUSED)
def test_what_batches_cannot_do_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    options, message = REFUSED[kind]
    path = build("llama", tmp_path / "base")
    _saved(path, {"r": 4, "target_modules": ["q_proj"], **options}, tmp_path / "adapter")
    with pytest.raises(AssertionError, match=message):
        _served(path, str(tmp_path / "adapter"))


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2", "gpt-neox"])
def test_all_components_give_what_they_give_on_transformers_model(architecture: str, tmp_path: Path) -> None:
    path = build(architecture, tmp_path)
    metadata = BaseMetadata.of_directory(path)
    weights = random_weights(metadata, EVERYTHING, seed=4)
    model = load_model(str(path), dtype="float32").model
    attach(model)
    components = random_components(metadata, EVERYTHING, seed=4)
    tokens = TokenBatch(
        torch.tensor(TEXT), torch.tensor(list(SEGMENTS), dtype=torch.uint8), torch.zeros(len(TEXT), dtype=torch.long), 1
    )
    probe = BiasedProbe(SoloAdaptation(components, tokens))
    with torch.inference_mode():
        ids, positions = torch.tensor([TEXT]), torch.arange(len(TEXT))[None]
        logits = model(input_ids=ids, position_ids=positions, use_cache=False, batch=probe).logits[0]
    served = _served(path, "w", {"w": weights}, SEGMENTS[:9])
    assert served == pytest.approx(_log_probs(logits), abs=2e-5)


class BiasedProbe(GeometryProbe):
    """Plain attention with the bias and the gain of one adapter, written without any of the kernels."""

    def __init__(self, adaptation: SoloAdaptation) -> None:
        super().__init__()
        self.adaptation: SoloAdaptation = adaptation

    def attend(self, module: Any, query: Any, key: Any, value: Any, scale: float, window: int, softcap: float) -> Any:
        layer, tokens = int(module.layer_idx), self.adaptation.tokens
        components = self.adaptation.components
        group = query.shape[1] // key.shape[1]
        k, v = key.double().repeat_interleave(group, 1), value.double().repeat_interleave(group, 1)
        scores = torch.einsum("qhd,khd->hqk", query.double(), k) * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        strength = components.strength(tokens.instruction, 1)[0].double()
        scores += strength * components.head_bias()[layer].double()[:, None, None] * tokens.is_instruction
        rows = torch.arange(query.shape[0])
        hidden = rows[None] > rows[:, None]
        if window:
            hidden |= rows[None] <= rows[:, None] - window
        mixed = torch.softmax(scores.masked_fill(hidden, float("-inf")), -1)
        return self.adaptation.gain(layer, torch.einsum("hqk,khd->qhd", mixed, v).to(query.dtype))
