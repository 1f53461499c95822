"""Mistakes in a temperature recipe are named with their fields."""

from __future__ import annotations

import json
from pathlib import Path
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
        ({"modes": {}, "head": {"instruction_encoder": 0}}, r"head.instruction_encoder: the classifier of `modes`"),
        ({"modes": {"token_cost": -1}}, r"modes.token_cost"),
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


def test_a_classifier_is_trained_only_where_it_is_asked_for() -> None:
    assert _recipe().components == _recipe().head.components
    both = _recipe(modes={"width": 8}).components
    assert both.names == ["instruction_encoder", "temperature_head", "mode_classifier"] and both.mode_classifier == 8
    assert not both.changes_cache


def test_a_recipe_that_was_stored_is_that_recipe_again(tmp_path: Path) -> None:
    """As `ift_config.json` holds it: every field, of sources of either kind."""
    (tmp_path / "mine.jsonl").write_text("")
    sources = [
        {"procedural": ["story", "sort"], "count": 30},
        {"file": "mine.jsonl", "limit": 3, "checks": [{"type": "end", "phrase": "it is"}]},
    ]
    validation = {"sources": [{"procedural": ["story"], "count": 9}]}
    recipe = TemperatureRecipe.parse(
        {"output": "new", "sources": sources, "validation": validation, "modes": {"budget": 9}}, tmp_path
    )
    stored = json.loads(json.dumps(recipe.model_dump(mode="json")))
    assert TemperatureRecipe.parse(stored) == recipe
