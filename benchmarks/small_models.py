"""Small random models of every causal language model class of transformers, in a few variants each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

_SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 160, "max_position_embeddings": 256, "n_positions": 256,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "sep_token_id": 3, "head_dim": 16, "rotary_dim": 8,
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "intermediate_size_mlp": 96,
    "moe_shared_expert_intermediate_size": 32, "shared_intermediate_size": 64,
    "ffn_dim": 96, "decoder_ffn_dim": 96, "encoder_ffn_dim": 96, "n_inner": 96, "ffn_hidden_size": 96,
    "decoder_layers": 4, "encoder_layers": 2, "decoder_attention_heads": 4, "encoder_attention_heads": 4,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "num_experts_per_tok": 2,
    "moe_k": 2, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1,
    "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16,
    "max_window_layers": 2, "use_sliding_window": True, "query_pre_attn_scalar": 16, "num_kv_shared_layers": 2,
    "vocab_size_per_layer_input": 160, "hidden_size_per_layer_input": 16, "laurel_rank": 8,
    "index_topk": 16, "index_n_heads": 2, "index_head_dim": 16, "attention_chunk_size": 16, "altup_num_inputs": 2,
    "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_ssm": 128, "mamba_d_state": 16, "mamba_num_heads": 4,
    "mamba_head_dim": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16, "embedding_size": 64, "time_step_rank": 8, "state_size": 16, "word_embed_proj_dim": 64,
    "d_kv": 16, "rope_head_dim": 8, "dim_model_base": 32, "partial_rotary_factor": 0.5, "d_model": 64,
    "max_seq_len": 256, "dim_head": 16, "dim_ff": 96, "expert_ffn_hidden_size": 32, "ssm_state_size": 16, "n_groups": 2,
    "moe_shared_intermediate_size": 32, "moe_latent_size": None, "num_global_key_value_heads": 2, "global_head_dim": 16,
}  # fmt: skip

_SCALES: dict[str, Any] = {
    "logit_scale": 0.4, "logits_scaling": 3.0, "final_logit_softcapping": 2.5, "attn_logit_softcapping": 2.0,
    "embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2, "lm_head_multiplier": 0.3,
    "scale_emb": 3.0, "scale_depth": 1.4, "router_scaling_factor": 2.0, "routed_scaling_factor": 1.7,
    "residual_scale": 0.7, "norm_topk_prob": True, "final_logits_softcap": 2.5, "clip_qkv": 0.7,
    "scale_attn_by_inverse_layer_idx": True, "mup_attn_multiplier": 0.2, "mup_width_scale": 0.4,
    "mup_embeddings_scale": 3.0, "embedding_scale": 2.0, "key_multiplier": 0.5, "attention_in_multiplier": 0.7,
    "attention_out_multiplier": 0.6, "logits_scale": 0.3, "scale_embedding": True,
    "attention_value_scale": 0.7,
}  # fmt: skip

_SWITCHES = (
    "attention_bias", "mlp_bias", "qkv_bias", "use_qk_norm", "qk_layernorm", "qk_norm", "use_qkv_bias", "bias",
    "use_bias", "alibi", "parallel_attn", "use_parallel_residual", "multi_query", "new_decoder_architecture",
    "attn_temperature_tuning", "add_qkv_bias", "use_bidirectional_attention", "lm_head_bias",
    "add_swa_attention_sink_bias", "add_full_attention_sink_bias",
    "use_attention_sinks", "apply_residual_connection_post_layernorm", "is_decoder",
    "use_gated_attention",
)  # fmt: skip

_ROPES: dict[str, dict[str, Any]] = {
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0},
}

_ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"] * 2}

_QWEN4 = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
    "hc_lowrank": 8,
}
_DOTS3 = {
    "head_dim": 16,
    "shared_experts_intermediate_size": 32,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 24,
    "swa_kv_lora_rank": 16,
    "swa_head_dim": 16,
    "swa_qk_nope_head_dim": 8,
    "swa_v_head_dim": 16,
}
_SMALL_VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}

_BLT_PART = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}

_OWN: dict[str, dict[str, Any]] = {
    "bert": {"is_decoder": True},
    "blt": {
        "vocab_size": 260,
        "encoder_hash_byte_group_vocab": 500,
        "patcher_config": _BLT_PART,
        "encoder_config": {**_BLT_PART, "hidden_size_global": 128},
        "decoder_config": {**_BLT_PART, "hidden_size_global": 128},
        "global_config": {**_BLT_PART, "hidden_size": 128},
    },
    "cohere_compass_text": {
        "layer_types": _ALTERNATING["layer_types"],
        "rope_parameters": {"sliding_attention": _ROPE, "full_attention": _ROPE},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 0.7, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        "tie_word_embeddings": False,
    },
    "dots3_note": _DOTS3,
    "dots3_note_text": _DOTS3,
    "falcon": {"parallel_attn": True},
    "gemma4": _ALTERNATING,
    "gemma4_text": _ALTERNATING,
    "gemma4_unified": _ALTERNATING,
    "gemma4_unified_text": _ALTERNATING,
    "git": {"vision_config": _SMALL_VISION},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "phi4_multimodal": {
        "vision_config": _SMALL_VISION,
        "audio_config": {"hidden_size": 32, "intermediate_size": 32, "num_blocks": 1, "num_attention_heads": 2},
    },
    "qwen4_exp": _QWEN4,
    "qwen4_exp_text": _QWEN4,
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [32, 32], "axial_pos_shape": [8, 8]},
    "xlnet": {"d_head": 16},
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "num_key_value_heads": 4},
    "zaya": {"num_experts_per_tok": 1},
}
"""What no rule finds."""

_SMALL_PART = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_OTHERS: dict[str, dict[str, dict[str, Any]]] = {
    "dots3_note": {
        "vision_config": {**_SMALL_PART, "adapter_in_dim": 32, "adapter_out_dim": 64, "mlp_layer_types": ["dense"]},
        "audio_config": {**_SMALL_PART, "adapter_input_size": 32, "adapter_out_dim": 64, "feature_size": 16},
    },
}
"""Parts beside the text whose sizes depend on one another."""

_TEXT_ALONE = {"emu3": "Emu3ForCausalLM", "mllama": "MllamaForCausalLM"}
"""Types whose causal class takes the text's configuration, which no automatic class knows."""

_CODES = "reads several streams of audio codes at once: no model of one text"
_DRAFTS = "drafts from the hidden states and keys of another model, and reads no token ids"
NOT_OF_TEXT = {
    "gemma4_assistant": _DRAFTS,
    "gemma4_unified_assistant": _DRAFTS,
    "musicgen": _CODES,
    "musicgen_melody": _CODES,
}
"""Classes that are listed as causal language models and are none of text alone."""


def variants(model_type: str) -> dict[str, Callable[[], Any]]:
    """Configurations by name; those that say the same as another are left out."""
    window = {"sliding_window": 9, "window_size": 9, "attention_window": 16}
    later = {**window, "sliding_window": 40}
    chosen: dict[str, dict[str, Any]] = {
        "plain": window,
        "scaled": {**later, **_SCALES, "tie_word_embeddings": "flip"},
        "switched": {**later, **dict.fromkeys(_SWITCHES, "flip")},
        **{name: {**window, "rope_parameters": rope} for name, rope in _ROPES.items()},
    }
    return {
        name: partial(small_config, model_type, changes)
        for name, changes in chosen.items()
        if name in ("plain", "scaled") or _knows(model_type, changes, name)
    }


def _config_class(model_type: str) -> Any:
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


def _default(model_type: str) -> Any:
    return _config_class(model_type)()


def _knows(model_type: str, changes: dict[str, Any], name: str) -> bool:
    try:
        config = _default(model_type).get_text_config(decoder=True)
    except Exception:
        return False
    if name in _ROPES:
        rope = getattr(config, "rope_parameters", None)
        return isinstance(rope, dict) and "rope_type" in rope
    return any(value == "flip" and isinstance(getattr(config, key, None), bool) for key, value in changes.items())


def small_config(model_type: str, changes: dict[str, Any]) -> Any:
    """A small configuration of that type with what of ``changes`` it knows."""
    default, own = _default(model_type), _OWN.get(model_type, {})
    text = default.get_text_config(decoder=True)
    part = next((name for name in default.sub_configs if getattr(default, name, None) is text), None)
    if model_type in _TEXT_ALONE:
        return type(text)(**{**_given(text, changes), **own}, architectures=[_TEXT_ALONE[model_type]])
    if part is None or part in own:
        return type(default)(**{**_given(default, changes), **own})
    sizes = _OTHERS.get(model_type, {})
    others = {
        name: type(sub)(**sizes[name]) if name in sizes else _small_other(sub)
        for name in default.sub_configs
        if name != part and (sub := getattr(default, name, None)) is not None
    }
    return type(default)(**{part: type(text)(**{**_given(text, changes), **own}), **others})


def _given(config: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """What of the sizes and ``changes`` this configuration knows, so that the sizes fit each other."""
    given = {key: value for key, value in {**_SIZES, **changes}.items() if _takes(config, key)}
    for key in [key for key, value in given.items() if value == "flip"]:
        if isinstance(_value(config, key), bool):
            given[key] = not _value(config, key)
        else:
            del given[key]
    if "qk_rope_head_dim" in given:
        # Latent attention: only the part of that size is rotated, all of it, and every head has keys of its own.
        given.pop("partial_rotary_factor", None)
        for key, value in (("head_dim", given["qk_rope_head_dim"]), ("num_key_value_heads", 4)):
            if key in given:
                given[key] = value
    if "is_encoder_decoder" in vars(config) and config.is_encoder_decoder:
        # The causal class of an encoder-decoder family is its decoder alone.
        given.update(is_decoder=True, is_encoder_decoder=False)
    return given


def _value(config: Any, key: str) -> Any:
    """The field itself, also where reading it asks for a layer."""
    stored = getattr(config, "attribute_map", {}).get(key, key)
    return vars(config)[stored] if stored in vars(config) else getattr(config, key, None)


def _takes(config: Any, key: str) -> bool:
    if key not in vars(config) and key not in getattr(config, "attribute_map", {}):
        return False
    return not (isinstance(_value(config, key), list | dict) and key != "rope_parameters")


def _small_other(config: Any) -> Any:
    small = copy.deepcopy(config)
    sizes = {
        "num_hidden_layers": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "depth": 1,
        "embed_dim": 32,
        "num_heads": 2,
    }
    for key, value in sizes.items():
        if isinstance(vars(small).get(key), int):
            setattr(small, key, value)
    return small


def build(config: Any, directory: Path) -> None:
    """Save a random model whose every parameter matters."""
    import torch
    import transformers

    torch.manual_seed(3)
    if config.architectures:
        model = getattr(transformers, config.architectures[0])._from_config(config, dtype=torch.float32)
    else:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if sum(p.numel() for p in model.parameters()) > 40_000_000:
        raise ValueError("this small model has over 40 million parameters")
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim < 2:
                parameter.add_(noise * 0.1)
            else:
                parameter.copy_(noise * 1.3 * parameter.shape[-1] ** -0.5)
    model.save_pretrained(directory)
