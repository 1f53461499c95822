"""Mistakes in a temperature recipe are named with their fields."""

from __future__ import annotations

from typing import Any

import pytest

from ift_training.base_recipe import RecipeError
from ift_training.temperature.settings import TemperatureRecipe


def _recipe(**changes: Any) -> TemperatureRecipe:
    return TemperatureRecipe.parse({"output": "new", "sources": [{"procedural": ["story"]}], **changes})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rollouts": {"temperatures": [0.2]}}, r"rollouts.temperatures: 0.2 is outside 0.333 to 3"),
        ({"rollouts": {"temperatures": [1.0, 1.0]}}, r"rollouts.temperatures: one is given twice"),
        ({"head": {"grain": "sequence", "instruction_encoder": 0}}, r"head: instruction_encoder: the sequence"),
        ({"head": {"grain": "word"}}, r"head.grain"),
        ({"reward": {"verifier": "mine:worth"}}, r"reward: directory: say where mine.py is"),
        ({"reward": {"verifier": "os.path:join"}}, r"reward.verifier"),
        ({"reward": {"novelty": {"stories": 0.5}}}, r"reward.novelty: 'stories' is no task; there are story"),
        ({"validation": {"share": 0.0}}, r"validation.share"),
        ({"rollout": {}}, r"rollout: is not known; did you mean `rollouts`"),
    ],
)
def test_a_mistake_is_named_with_its_field(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        _recipe(**changes)


def test_the_defaults_go_together_and_train_one_head() -> None:
    assert _recipe().head.components.names == ["instruction_encoder", "temperature_head"]
    of_sequence = _recipe(head={"grain": "sequence"}).head.components
    assert of_sequence.names == ["instruction_encoder", "sequence_temperature"]
    assert not of_sequence.changes_cache
