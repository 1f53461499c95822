"""Small random models of every architecture that is served, built in a temporary directory."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

_SHAPE = dict(  # noqa: C408
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=160,
    max_position_embeddings=256,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)

ARCHITECTURES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("Llama", {}),
    "llama-biased": ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama3-rope": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "mistral": ("Mistral", {"sliding_window": 13}),
    "qwen2": ("Qwen2", {}),
    "qwen2-windowed": ("Qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "gemma2": ("Gemma2", {"head_dim": 16, "sliding_window": 11, "query_pre_attn_scalar": 16}),
    "gemma3": ("Gemma3ForCausalLM", {"head_dim": 16, "sliding_window": 11, "query_pre_attn_scalar": 16}),
    "phi3": ("Phi3", {"sliding_window": 17}),
    "olmo2": ("Olmo2", {}),
    "smollm3": ("SmolLM3", {"no_rope_layer_interval": 2}),
    "granite": (
        "Granite",
        {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2, "logits_scaling": 2.0},
    ),
    "cohere": ("Cohere", {"logit_scale": 0.3}),
    "phimoe": ("Phimoe", {"sliding_window": 12, "num_local_experts": 4}),
    "deepseek-v3": (
        "DeepseekV3",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": 24,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 16,
            "v_head_dim": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
        },
    ),
    "gpt-neox": ("GPTNeoX", {"rotary_pct": 0.5}),
    "starcoder2": ("Starcoder2", {"sliding_window": 15}),
}


def build(name: str, directory: Path, *, dtype: torch.dtype = torch.float32, seed: int = 0, **options: object) -> Path:
    """Save a random model of that architecture; its logits are spread out so that argmax ties do not occur.

    options: values of its configuration that differ from the table's.
    """
    prefix, extra = ARCHITECTURES[name]
    if prefix == "Gemma3ForCausalLM":
        config_class, model_class = transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM
    else:
        config_class = getattr(transformers, f"{prefix}Config")
        model_class = getattr(transformers, f"{prefix}ForCausalLM")
    torch.manual_seed(seed)
    model = model_class(config_class(**{**_SHAPE, **extra, **options}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.15)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.to(dtype).save_pretrained(directory)
    return directory
