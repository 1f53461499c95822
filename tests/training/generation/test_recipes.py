"""Recipes that come with the package, and those that the page shows: they can be run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import ift_training
from ift_training.data.generation.prompts import FIELDS, PromptFile, Prompts, packaged
from ift_training.data.generation.seeds import read_seeds
from ift_training.data.generation.settings import EvolutionRecipe, GenerationRecipe
from ift_training.recipe import Recipe
from ift_training.recipe_file import RecipeFile

_PAGE = Path(__file__).parents[3] / "docs" / "data.md"
_KINDS: dict[str, type[RecipeFile]] = {"generate": GenerationRecipe, "evolve": EvolutionRecipe, "train": Recipe}


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL))
def test_a_recipe_of_the_page_is_one(text: str) -> None:
    command = re.search(r"ift-serve (?:data )?(\w+) ", text)
    assert command is not None
    _KINDS[command[1]].parse(yaml.safe_load(text))


def test_the_packaged_recipe_has_its_seeds() -> None:
    path = Path(ift_training.__file__).parent / "recipes" / "abstracts-variations.yaml"
    recipe = EvolutionRecipe.load(path)
    seeds = read_seeds(recipe.seeds)
    assert 20 <= len(seeds) <= 50 and all(seed.context and len(seed.response.split()) < 30 for seed in seeds)
    assert recipe.store == Path("abstracts.sqlite"), "written where the command runs, not into the package"


@pytest.mark.parametrize("name", FIELDS)
def test_every_packaged_prompt_uses_all_its_fields(name: str) -> None:
    prompt = PromptFile(name, packaged(name), FIELDS[name])
    filled = prompt.fill(**{field: f"<{field}>" for field in FIELDS[name]})
    assert all(f"<{field}>" in filled for field in FIELDS[name]) and filled == filled.rstrip("\n")


def test_every_prompt_file_is_known() -> None:
    folder = Path(ift_training.__file__).parent / "data" / "generation" / "prompts"
    assert {path.stem for path in folder.iterdir()} == set(FIELDS)
    assert len(Prompts().references()) == len(FIELDS)
