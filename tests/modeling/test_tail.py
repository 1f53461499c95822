"""What comes after the backbone is the model's own, in training as in serving."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from ift_serve.modeling.decoder.attention import ATTENTION_NAME, register_attention
from ift_serve.modeling.decoder.tail import ModelTail
from ift_training.losses.multi_task import TaskBalance
from ift_training.model.instruction_model import InstructionModel

SHAPE: dict[str, Any] = dict(  # noqa: C408
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    vocab_size=64,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
TAILS: dict[str, tuple[dict[str, Any], bool, bool]] = {
    "Llama": ({}, True, True),
    "Cohere": ({"logit_scale": 0.3}, False, True),
    "Granite": ({"logits_scaling": 3.0}, False, True),
    "Gemma2": ({"final_logit_softcapping": 2.0, "head_dim": 16}, False, True),
    "MiniCPM3": (
        {
            "dim_model_base": 10,
            "q_lora_rank": 8,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 16,
        },
        False,
        False,
    ),
}


def _model(name: str) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SHAPE, **TAILS[name][0])
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


@pytest.mark.parametrize("name", TAILS)
def test_a_tail_is_recognised_and_gives_the_models_logits(name: str) -> None:
    model = _model(name)
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits[0]
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
        tail = ModelTail(model)
        kind = tail.recognise()
        torch.testing.assert_close(tail.logits(hidden), expected)
        assert (kind.is_product, kind.splits) == TAILS[name][1:]
        if kind.splits and not kind.is_product:
            torch.testing.assert_close(tail.finish(tail.head(hidden)), expected)


@pytest.mark.parametrize("name", TAILS)
def test_the_trainer_sees_the_models_logits(name: str) -> None:
    register_attention()
    model = _model(name)
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits[0]
        model.set_attn_implementation(ATTENTION_NAME)
        trained = InstructionModel(model, None, TaskBalance(["task"], None), represents=False)
        sequence = torch.zeros_like(ids)
        tokens = trained.tokens(ids, torch.zeros_like(ids), sequence, 1)
        hidden, _ = trained.hidden_states(ids, torch.arange(17)[None], sequence, tokens)
        torch.testing.assert_close(trained.logits(hidden), expected, atol=1e-5, rtol=1e-4)
