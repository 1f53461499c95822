"""Recipes: what is accepted, how mistakes are explained, and the one that is written for a beginner."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import ift_training.recipe as recipe_module
from ift_serve.checks import CHECKS, fields_of
from ift_serve.embedded import model_path
from ift_training.base_recipe import BaseRecipe
from ift_training.data.procedural import families
from ift_training.data.settings import SourceSettings
from ift_training.recipe import Recipe, RecipeError, apply_override
from ift_training.recipe_template import recipe_template
from ift_training.settings import TrainerSettings
from ift_training.temperature.settings import TemperatureRecipe

RECIPES = Path(recipe_module.__file__).parent / "recipes"
TRAINED = sorted(p for p in RECIPES.glob("*.yaml") if "sources" in yaml.safe_load(p.read_text(encoding="utf-8")))
"""Those of trainings; others make data."""


def minimal(**other: Any) -> dict[str, Any]:
    return {"output": "out", "sources": [{"procedural": ["sort"]}], **other}


def written(path: Path, found: Any) -> Path:
    path.write_text(yaml.safe_dump(found), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"sources": [{"procedural": ["sort"]}]}, "output: is missing"),
        (minimal(sources=[]), "sources: "),
        (minimal(max_lenght=3), "max_lenght: is not known; did you mean `max_length`?"),
        (minimal(trainer={"lora": {"rang": 3}}), "trainer.lora.rang: is not known; did you mean `rank`?"),
        (minimal(trainer={"lora": {"zzz": 3}}), "trainer.lora.zzz: is not known; there are rank, alpha"),
        (minimal(sources=[{"procedural": ["sort"], "wieght": 1}]), "sources.0.wieght: is not known; did you mean"),
        (minimal(validation={"sources": [{"x": 1, "jsonl": "a"}]}), "validation.sources.0.x: is not known"),
        (minimal(trainer={"learning_rate": "fast"}), "trainer.learning_rate: .*valid number.*'fast'"),
        (minimal(trainer={"learning_rate": -1}), "trainer.learning_rate: .*greater than 0, not -1"),
        (minimal(sources=[{"procedural": ["sorting"]}]), "sources.0.procedural: no family 'sorting'"),
        (minimal(evaluation={"best": "luck"}), "evaluation.best: "),
        (minimal(loss_on="some"), "loss_on: "),
        (minimal(name="../escape"), "name: "),
        (minimal(sources=[{"jsonl": "a/x.jsonl"}, {"jsonl": "b/x.jsonl"}]), "two files make the task 'x'"),
        (minimal(trainer={"losses": {"task_weights": {"story": 2}}}), "'story' is no task; there are sort"),
        (minimal(template="nowhere.jinja"), "template: .*nowhere.jinja cannot be read"),
        (minimal(trainer={"learning_rate": float("inf")}), "trainer.learning_rate: .*finite number"),
        (minimal(trainer={"epochs": float("nan")}), "trainer.epochs: .*finite number"),
        (minimal(sources=[{"procedural": ["sort"], "count": 10**20}]), "sources.0.count: "),
        (minimal(trainer={"losses": {"task_weights": {"sort": -1.0}}}), "trainer.losses.task_weights.sort: "),
        (minimal(trainer={"losses": {"task_weights": 3}}), "^trainer.losses.task_weights: .*; or .*'learned'"),
        (
            minimal(trainer={"lora": {"alpha_pattern": {"q_proj": 0}}}),
            "trainer.lora.alpha_pattern.q_proj: .*above|than 0",
        ),
        (
            minimal(trainer={"lora": {"rank": 0}, "components": {"temperature_head": 8}}),
            "no loss reaches temperature_head",
        ),
        (
            minimal(trainer={"lora": {"rank": 0}, "components": {"instruction_encoder": 8}}),
            "no loss reaches instruction_e",
        ),
        (minimal(evaluation={"patience": 2, "every": 0}), "evaluation.patience: .*evaluation.every"),
        (minimal(evaluation={"patience": 2}, validation={"share": 0}), "evaluation.patience: .*validation.share"),
        (
            minimal(sources=[{"jsonl": "a.jsonl"}], validation={"sources": [{"jsonl": "a.jsonl"}]}),
            "validation.sources.0.file: .*is trained on",
        ),
        (
            minimal(sources=[{"jsonl": "a", "checks": [{"type": ["end"]}]}]),
            r"sources.0.checks.*\['end'\] is not one of",
        ),
    ],
)
def test_a_mistake_is_named_with_its_field(tmp_path: Path, found: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Recipe.load(written(tmp_path / "recipe.yaml", found))


def test_what_may_not_be_meant_is_noted() -> None:
    plain = Recipe.parse(minimal())
    assert plain.notes() == []
    heads = {"temperature_head": 8, "adherence_head": 8, "instruction_encoder": 8}
    odd = Recipe.parse(
        minimal(trainer={"lora": {"rank": 8, "rank_pattern": {"q_proj": 128}, "dora": True}, "components": heads})
    )
    assert [note.split(":")[0] for note in odd.notes()] == [
        "trainer.components.instruction_encoder",
        "trainer.components.temperature_head",
        "trainer.components.adherence_head",
        "trainer.lora.rank",
    ]


def test_procedural_validation_is_drawn_apart() -> None:
    recipe = Recipe.parse(
        minimal(validation={"sources": [{"procedural": ["sort"]}, {"procedural": ["sort"], "split": "test"}]})
    )
    assert [source.split for source in recipe.validation.sources] == ["validation", "test"]


@pytest.mark.parametrize(
    ("sources", "validation", "said"),
    [
        ([{"procedural": ["sort"], "split": "validation"}], {}, "sources.0.split: sort .* of the split validation"),
        (
            [{"procedural": ["reverse"]}, {"procedural": ["sort", "reverse"], "split": "validation"}],
            {"share": 0.2},
            "sources.0.split: reverse ",
        ),
        (
            [{"procedural": ["sort"]}],
            {"sources": [{"procedural": ["reverse", "sort"], "split": "train"}]},
            "validation.sources.0.split: sort ",
        ),
    ],
)
def test_families_are_not_validated_on_what_they_are_trained_on(
    sources: list[dict[str, Any]], validation: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        Recipe.parse(minimal(sources=sources, validation=validation))
    apart = [{**source, "split": "test"} for source in sources]
    assert Recipe.parse(minimal(sources=apart, validation=validation)).sources[0].split == "test"


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(minimal(seed=-1, max_length="x"))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(("text", "said"), [("a: [", "not YAML"), ("- a", "not a recipe"), ("", "not a recipe")])
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=said):
        Recipe.load(path)
    with pytest.raises(RecipeError, match="train --init"):
        Recipe.load(tmp_path / "missing.yaml")


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("output: !!python/object/apply:os.system ['true']", encoding="utf-8")
    with pytest.raises(RecipeError, match="not YAML"):
        Recipe.load(path)


def test_overrides_are_typed(tmp_path: Path) -> None:
    path = written(tmp_path / "recipe.yaml", minimal())
    recipe = Recipe.load(
        path,
        [
            "trainer.learning_rate=3e-3",
            "trainer.lora.rank=4",
            "sources.0.count=7",
            "name=other",
            "template=null",
            "trainer.lora.targets=[q_proj, v_proj]",
            "trainer.components.segment_embedding=true",
        ],
    )
    assert (recipe.trainer.learning_rate, recipe.trainer.lora.rank, recipe.sources[0].count) == (3e-3, 4, 7)
    assert recipe.name == "other" and recipe.trainer.lora.targets == ["q_proj", "v_proj"]
    assert recipe.trainer.components.names == ["segment_embedding"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.lora.rank", "write --set field=value"),
        ("=3", "write --set field=value"),
        ("trainer.lora.rank=[", "not a YAML value"),
        ("sources.4.count=1", "'4' is not one of 0 to 0"),
        ("sources.first.count=1", "'first' is not one of 0 to 0"),
        ("output.a=1", "nothing inside the field before 'a'"),
    ],
)
def test_an_override_that_leads_nowhere(override: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        apply_override(minimal(), override)


def test_an_unknown_field_in_an_override_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"trainer\.steps: is not known"):
        Recipe.load(written(tmp_path / "recipe.yaml", minimal()), ["trainer.steps=3"])


def test_files_are_looked_for_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages }}", encoding="utf-8")
    recipe = Recipe.load(
        written(
            tmp_path / "recipe.yaml",
            {
                "output": "out",
                "sources": [{"jsonl": "a.jsonl"}, {"jsonl": "/b.jsonl"}],
                "template": "t.jinja",
                "trainer": {"losses": {"ewc": {"weight": 1, "fisher": "f.safetensors"}}},
            },
        )
    )
    assert [s.file for s in recipe.sources] == [tmp_path / "a.jsonl", Path("/b.jsonl")]
    assert recipe.template == "{{ messages }}" and recipe.output == Path("out")
    assert recipe.trainer.losses.ewc.fisher == tmp_path / "f.safetensors"


def test_the_embedded_model_has_a_name() -> None:
    assert Recipe.parse(minimal()).base_directory() == str(model_path())
    assert Recipe.parse(minimal()).hub_id is None
    with pytest.raises(RecipeError, match="base: some/model: there is no such directory"):
        Recipe.parse(minimal(base="some/model")).base_directory()


def test_the_written_recipe_is_valid_and_holds_the_defaults() -> None:
    found = yaml.safe_load(recipe_template())
    recipe = Recipe.parse(found)
    defaults = Recipe.parse({"output": recipe.output, "sources": found["sources"]})
    assert recipe == defaults and recipe.trainer == TrainerSettings()
    assert set(found) == set(Recipe.model_fields)
    assert set(found["trainer"]) == set(TrainerSettings.model_fields)
    assert all(len(line) <= 120 for line in recipe_template().splitlines())


def test_its_commented_source_is_valid_too() -> None:
    lines = recipe_template().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("  # - file"))
    last = next(i for i in range(first, len(lines)) if not lines[i])
    lines[first:last] = [line.replace("# ", "", 1) for line in lines[first:last]]
    found = yaml.safe_load("\n".join(lines))
    assert Recipe.parse(found).sources[1].weight == 2.0
    both = set(found["sources"][0]) | set(found["sources"][1])
    assert both == set(SourceSettings.model_fields)


def schema_words(schema: Any) -> Iterator[str]:
    """Every field and every word that a field may be set to, as pydantic describes the recipe."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        yield from map(str, schema.get("enum", []))
        if "const" in schema:
            yield str(schema["const"])
        for part in schema.values():
            yield from schema_words(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from schema_words(part)


def test_it_lists_every_choice() -> None:
    words = set(re.findall(r"[\w-]+", recipe_template()))
    wanted = {*schema_words(Recipe.model_json_schema(by_alias=False)), *families(), *CHECKS}
    wanted |= {field for name in CHECKS for field in fields_of(name)} | {"all", "constraints"}
    assert len(wanted) > 100 and not wanted - words
    unwrapped = " ".join(recipe_template().replace("# ", "").split())
    for name in CHECKS:
        fields = f" ({', '.join(fields_of(name))})" if fields_of(name) else ""
        assert f"{name}{fields}" in unwrapped


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_the_recipes_that_come_with_the_package_are_valid(path: Path) -> None:
    recipe: BaseRecipe = (TemperatureRecipe if path.stem.endswith("-temperature") else Recipe).load(path)
    assert all(source.file is None or source.file.is_file() for source in recipe.sources)


def test_there_are_recipes_in_the_package() -> None:
    assert {path.stem for path in TRAINED} >= {"style-small", "ift-tiny-constraints", "ift-tiny-temperature"}


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_a_recipe_is_the_same_as_an_adapter_keeps_it(path: Path, tmp_path: Path) -> None:
    kind = TemperatureRecipe if "temperature" in path.stem else Recipe
    recipe = kind.load(path)
    noted = recipe.model_dump(mode="json") | {"trained_on": ["family:sort"]}
    config = tmp_path / "ift_config.json"
    config.write_text(json.dumps({"format_version": 1, "recipe": noted}), encoding="utf-8")
    assert kind.load(config) == recipe


def test_an_adapter_without_a_recipe_says_so(tmp_path: Path) -> None:
    config = tmp_path / "ift_config.json"
    config.write_text('{"format_version": 1}', encoding="utf-8")
    with pytest.raises(RecipeError, match="is not a recipe"):
        Recipe.load(config)
    config.write_text("{", encoding="utf-8")
    with pytest.raises(RecipeError, match="is not JSON"):
        Recipe.load(config)
