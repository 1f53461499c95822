"""PEFT's own adapters give PEFT's logits, or are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ift_serve.modeling.adapter_format.apply import merged_reference
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.errors import AdapterError
from ift_serve.modeling.adapter_format.reader import read_adapter
from ift_serve.modeling.decoder.model_loader import load_model
from tests.modeling.adapter_format.cases import base_model, logits, peft_logits, save_with_peft

Q, E, H = "q_proj", "embed_tokens", "lm_head"
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": [Q, "v_proj", "down_proj"]},
    "rslora": {"target_modules": [Q], "use_rslora": True, "lora_alpha": 5, "r": 9},
    "dora": {"target_modules": "all-linear", "use_dora": True},
    "all-linear": {"target_modules": "all-linear"},
    "regex": {"target_modules": r".*layers\.[0-1]\.(self_attn|mlp)\.(q|down)_proj"},
    "long-regex": {"target_modules": r"(?:.*?(?:layers|text).*?(?:attn|mlp).*?(?:q_proj|o_proj).*?)|(?:\blm_head)"},
    "full-names": {"target_modules": ["model.layers.1.self_attn.q_proj", "layers.0.mlp.up_proj"]},
    "patterns": {
        "target_modules": "all-linear",
        "rank_pattern": {r"layers\.[01]\..*down_proj": 3, "self.attn.k_proj": 7, "^model.layers.2.mlp.up_proj": 5},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 3.5, ".*o_proj": 20},
    },
    "pattern-order": {"target_modules": [Q], "rank_pattern": {"layers.1.self_attn.q_proj": 6, Q: 2}},
    "pattern-at-a-dot": {"target_modules": [Q, "up_proj"], "rank_pattern": {"proj": 2, "p_proj": 3}},
    "one-layer": {"target_modules": [Q], "layers_to_transform": 1},
    "some-layers": {"target_modules": [Q], "layers_to_transform": [0, 2], "layers_pattern": "layers"},
    "exclude": {"target_modules": "all-linear", "exclude_modules": r".*layers\.2\..*"},
    "exclude-names": {"target_modules": [Q, "k_proj"], "exclude_modules": ["layers.0.self_attn.k_proj"]},
    "gaussian": {"target_modules": [Q], "init_lora_weights": "gaussian", "lora_dropout": 0.1},
    "unknown-target": {"target_modules": [Q, "c_attn"]},
    "embeddings": {"target_modules": [Q, E]},
    "head": {"target_modules": [Q, H]},
    "embeddings-and-head": {"target_modules": [E, H], "use_rslora": True},
    "dora-embeddings": {"target_modules": [Q, E, H], "use_dora": True},
    "head-saved": {"target_modules": [Q], "modules_to_save": [H]},
    "embeddings-saved": {"target_modules": [Q], "modules_to_save": [E]},
    "both-saved": {"target_modules": [Q], "modules_to_save": [E, H]},
    "norms-saved": {"target_modules": [Q], "modules_to_save": ["norm"]},
    "block-saved": {"target_modules": "all-linear", "modules_to_save": ["mlp"]},
    "tokens": {"target_modules": [Q], "trainable_token_indices": [20, 7, 56]},
    "tokens-by-name": {"target_modules": [Q], "trainable_token_indices": {E: [20, 7]}},
    "tokens-of-head": {"target_modules": [Q], "trainable_token_indices": {H: [20, 7]}},
    "tokens-of-both": {"target_modules": [Q], "trainable_token_indices": {E: [20, 7], H: [7, 20, 3]}},
    "same-tokens": {"target_modules": [Q], "trainable_token_indices": {E: [20, 7], H: [20, 7]}},
}
TIED = [name for name in VARIANTS if any(word in name for word in ("embeddings", "head", "saved", "tokens"))]
OTHER = ["lora", "dora", "all-linear", "embeddings-and-head", "dora-embeddings", "tokens"]
NEOX = {
    "lora": {"target_modules": ["query_key_value", "dense_4h_to_h"]},
    "embeddings": {"target_modules": ["embed_in", "dense"]},
    "norm-saved": {"target_modules": ["dense"], "modules_to_save": ["final_layer_norm"]},
    "tokens": {"target_modules": ["dense"], "trainable_token_indices": [5, 3]},
}
CASES = [
    *[("llama", name, options) for name, options in VARIANTS.items()],
    *[("llama-biased", name, VARIANTS[name]) for name in ["lora", "dora", *TIED]],
    *[(architecture, name, VARIANTS[name]) for architecture in ("qwen3", "gemma2") for name in OTHER],
    *[("gpt-neox", name, options) for name, options in NEOX.items()],
]


@pytest.mark.parametrize(("architecture", "variant", "options"), CASES, ids=[f"{a}-{v}" for a, v, _ in CASES])
def test_pefts_adapters_give_pefts_logits(
    architecture: str, variant: str, options: dict[str, Any], base_of: Callable[[str], Path], tmp_path: Path
) -> None:
    path = base_of(architecture)
    adapter = save_with_peft(path, tmp_path / "adapter", **{"r": 4, **options})
    model = base_model(path)
    expected = peft_logits(path, adapter)
    weights = read_adapter(adapter, BaseMetadata.of_directory(path))
    assert (logits(model) - expected).abs().max() > 0.05, "the adapter changes nothing"
    torch.testing.assert_close(logits(merged_reference(model, weights)), expected, atol=1e-5, rtol=1e-5)


def test_a_model_in_memory_and_its_directory_are_the_same_base(base_of: Callable[[str], Path]) -> None:
    for architecture in ("llama", "llama-biased", "gemma2", "gpt-neox"):
        path = base_of(architecture)
        loaded = load_model(str(path), dtype="float32")
        metadata = BaseMetadata.of_model(loaded)
        assert metadata == BaseMetadata.of_directory(path)
        assert metadata.stored_weight(f"{metadata.embedding_path}.weight") is loaded.model.get_input_embeddings().weight  # type: ignore[operator]


def test_the_model_is_left_alone(base_of: Callable[[str], Path], tmp_path: Path) -> None:
    path = base_of("llama-biased")
    model = base_model(path)
    before = logits(model)
    adapter = save_with_peft(path, tmp_path / "adapter", r=4, target_modules=[Q], trainable_token_indices=[1])
    merged_reference(model, read_adapter(adapter, BaseMetadata.of_directory(path)))
    assert torch.equal(logits(model), before)


def test_stored_base_weights_are_kept_only_where_they_differ(base_of: Callable[[str], Path], tmp_path: Path) -> None:
    """PEFT writes embeddings beside their LoRA, and puts them in place of the base's when it loads them."""
    from safetensors.torch import load_file, save_file

    path = base_of("llama-biased")
    adapter = save_with_peft(path, tmp_path / "adapter", r=4, target_modules=[Q, E])
    metadata = BaseMetadata.of_directory(path)
    assert not read_adapter(adapter, metadata).replaced
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors["base_model.model.model.embed_tokens.base_layer.weight"] += 0.05
    save_file(tensors, file)
    weights = read_adapter(adapter, metadata)
    assert set(weights.replaced) == {"model.embed_tokens.weight", "lm_head.weight"}
    merged = logits(merged_reference(base_model(path), weights))
    torch.testing.assert_close(merged, peft_logits(path, adapter), atol=1e-5, rtol=1e-5)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "bias": ("llama", {"bias": "all"}, "bias: all: trained biases are not served"),
    "pissa": ("llama", {"init_lora_weights": "pissa"}, "init_lora_weights: pissa: changes the base model"),
    "olora": ("llama", {"init_lora_weights": "olora"}, "init_lora_weights: olora"),
    "lora-bias": ("llama", {"lora_bias": True}, "lora_bias: True: biases of LoRA B"),
    "replication": ("llama", {"layer_replication": [(0, 2), (1, 3)]}, "layer_replication: "),
    "activated": ("llama", {"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens: "),
    "tied": ("llama-biased", {"target_modules": [Q, E], "ensure_weight_tying": True}, "ensure_weight_tying: True"),
    "lost-module": ("llama", {"modules_to_save": ["temperature_head"]}, "modules_to_save: temperature_head: the base"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_served_is_refused_by_field_and_value(
    kind: str, base_of: Callable[[str], Path], tmp_path: Path
) -> None:
    architecture, options, message = REFUSED[kind]
    path = base_of(architecture)
    adapter = save_with_peft(path, tmp_path / "adapter", **{"r": 4, "target_modules": [Q], **options})
    with pytest.raises(AdapterError, match=message):
        read_adapter(adapter, BaseMetadata.of_directory(path))
