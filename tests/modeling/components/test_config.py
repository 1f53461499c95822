"""Which components go together, and what is said when they do not."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from ift_serve.modeling.components.config import BaseShape, ComponentsConfig
from ift_serve.modeling.components.instruction_components import InstructionComponents

SHAPE = BaseShape(hidden_size=12, layers=2, heads=3, vocabulary_size=20)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"two_stream": 8}, ["two_stream", "set instruction_encoder"]),
        ({"instruction_gate": 4}, ["instruction_gate", "set instruction_encoder"]),
        ({"sequence_temperature": 8}, ["sequence_temperature", "set instruction_encoder"]),
        ({"instruction_encoder": 30}, ["instruction_encoder", "multiple of 4"]),
        ({"reasoning_pathways": 10}, ["reasoning_pathways", "three"]),
        ({"adherence_head": -1}, ["adherence_head"]),
        ({"instruction_embedding": 10**9}, ["instruction_embedding"]),
        ({"segment_embeding": True}, ["segment_embeding"]),
    ],
)
def test_a_wrong_configuration_is_refused_by_the_fields_name(fields: dict[str, int], named: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        ComponentsConfig.model_validate(fields)
    for part in named:
        assert part in str(caught.value)


def test_nothing_is_on_by_default_and_nothing_is_stored() -> None:
    config = ComponentsConfig()
    assert config.names == []
    assert not config.changes_cache and not config.uses_segments and not config.uses_instruction_vector
    assert dict(InstructionComponents(config, SHAPE).state_dict()) == {}


@pytest.mark.parametrize(
    ("fields", "cache", "vector"),
    [
        ({"adherence_head": 8, "temperature_head": 8, "reasoning_pathways": 6}, False, False),
        ({"instruction_encoder": 16, "adherence_head": 8}, False, False),
        ({"instruction_encoder": 16, "sequence_temperature": 8}, False, False),
        ({"segment_embedding": True}, True, False),
        ({"attention_gain": True}, True, False),
        ({"attention_bias": True}, True, False),
        ({"attention_bias": True, "instruction_encoder": 16}, True, True),
        ({"two_stream": 4, "instruction_encoder": 16}, True, True),
        ({"instruction_gate": 4, "instruction_encoder": 16}, True, True),
    ],
)
def test_a_cached_prefix_depends_on_what_changes_keys_and_values(
    fields: dict[str, int], cache: bool, vector: bool
) -> None:
    config = ComponentsConfig.model_validate(fields)
    assert (config.changes_cache, config.uses_segments, config.uses_instruction_vector) == (cache, cache, vector)


def test_shapes_are_those_of_the_design() -> None:
    config = ComponentsConfig(
        segment_embedding=True,
        instruction_embedding=4,
        instruction_encoder=8,
        two_stream=6,
        attention_bias=True,
        attention_gain=True,
        instruction_gate=2,
        reasoning_pathways=9,
        temperature_head=5,
        sequence_temperature=3,
        mode_classifier=5,
        adherence_head=7,
    )
    shapes = {name: tuple(t.shape) for name, t in InstructionComponents(config, SHAPE).state_dict().items()}
    expected = {
        "segment_embedding.weight": (4, 12),
        "instruction_embedding.rows": (20, 4),
        "instruction_embedding.columns": (4, 12),
        "two_stream.up.weight": (12, 6),
        "two_stream.down.weight": (6, 20),
        "attention_bias.heads": (2, 3),
        "attention_bias.strength_weight": (8,),
        "attention_gain.weight": (2, 3),
        "instruction_gate.value": (2, 12, 8),
        "reasoning_pathways.output.weight": (12, 9),
        "temperature_head.output.weight": (1, 5),
        "sequence_temperature.instruction.weight": (3, 8),
        "mode_classifier.instruction.weight": (5, 8),
        "mode_classifier.output.weight": (3, 5),
    }
    assert {name: shapes[name] for name in expected} == expected
    assert {name.split(".")[0] for name in shapes} == set(config.names)


def test_parameters_are_float32_whatever_the_default() -> None:
    kinds = {p.dtype for p in InstructionComponents(ComponentsConfig(instruction_encoder=8), SHAPE).parameters()}
    assert kinds == {torch.float32}
