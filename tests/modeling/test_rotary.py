"""Rotary embeddings whose angles depend on the longest sequence are told apart from those of fixed angles."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from ift_serve.modeling.decoder.model_loader import _context_length
from ift_serve.modeling.decoder.rotary import depends_on_longest

DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}


def _model(rope: dict[str, Any]) -> tuple[Any, Any]:
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=64,
        max_position_embeddings=64,
        rope_parameters=dict(rope),
    )
    return transformers.LlamaForCausalLM(config), config


@pytest.mark.parametrize(
    ("rope", "length", "expected"), [(PLAIN, 64, False), (YARN, 64, False), (DYNAMIC, 64, False), (DYNAMIC, 200, True)]
)
def test_angles_that_depend_on_the_longest_sequence_are_found(
    rope: dict[str, Any], length: int, expected: bool
) -> None:
    model, config = _model(rope)
    assert depends_on_longest(model, config, length) is expected


def test_layers_with_rotary_embeddings_of_their_own_bound_the_context() -> None:
    class Config:
        max_position_embeddings = 256
        rope_parameters = {  # noqa: RUF012
            "full_attention": {"rope_type": "longrope", "original_max_position_embeddings": 48},
            "none": None,
        }

    assert _context_length(Config(), None, "model") == 48


@pytest.mark.parametrize("said", [None, 0, -1])
def test_a_configuration_that_names_no_length_has_the_usual_one(said: int | None) -> None:
    """XLNet's says -1, and was refused without its name."""

    class Config:
        max_position_embeddings = said

    assert _context_length(Config(), None, "model") == 2048
    assert _context_length(Config(), 64, "model") == 64
