"""From recipe to request: the classifier learns on the embedded model what thoughts are worth, and serving asks it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ift_serve.client import Auto, ServerError
from ift_serve.embedded import model_path
from ift_serve.server.config import ServerConfig
from ift_training.data.procedural import draw, families
from ift_training.temperature.report import TemperatureReport
from ift_training.temperature.run import train_temperature
from ift_training.temperature.settings import TemperatureRecipe
from tests.support.serving import serving

SUMS, FACTS = "word_problem", "classify"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TemperatureReport]:
    """As few answers as show it."""
    output = tmp_path_factory.mktemp("auto") / "adapter"
    recipe = TemperatureRecipe.parse(
        {
            "output": str(output),
            "max_length": 256,
            "sources": [{"procedural": [SUMS, FACTS], "count": 400}],
            "validation": {"share": 0.2},
            "head": {"temperature": 0.3},
            "rollouts": {"prompts": 32, "held_out": 16, "samples": 2, "temperatures": [0.3], "max_new_tokens": 12},
            "learning": {"steps": 2, "every": 2},
            "modes": {"token_cost": 0.002, "budget": 96, "branches": 2},
            "calibration": {"tokens": 0},
        }
    )
    return output, train_temperature(recipe, progress=False)


def test_thoughts_are_chosen_where_they_pay(adapter: tuple[Path, TemperatureReport]) -> None:
    modes = adapter[1].modes
    assert modes[SUMS].rewards["trace"] > modes[SUMS].rewards["none"] + 0.3
    assert modes[SUMS].chosen["trace"] >= 0.75 and modes[FACTS].chosen["none"] >= 0.75
    best = max(modes["all"].rewards.values())
    assert modes["all"].reward >= best and modes["all"].spent < modes["all"].tokens["trace"]
    assert "## Modes of reasoning" in (adapter[0] / "README.md").read_text()


async def test_a_server_asks_the_classifier_of_an_adapter_that_it_has_just_loaded(
    adapter: tuple[Path, TemperatureReport], server_config: Callable[..., ServerConfig]
) -> None:
    config = server_config({"model": str(model_path())}, adapter_roots=[str(adapter[0].parent)])
    modes: dict[str, list[str]] = {SUMS: [], FACTS: []}
    async with serving(config) as (_, client):
        with pytest.raises(ServerError, match=r"auto"):
            await client.generate("What is 3 + 4?", reasoning=Auto(), max_new_tokens=12)
        await client.load_adapter("auto", str(adapter[0]))
        for family, found in modes.items():
            rng = random.Random(3)
            for example in (draw(families()[family], "test", rng) for _ in range(6)):
                answer = await client.generate(
                    example.prompt, adapter="auto", reasoning=Auto(), temperature=0.0, max_new_tokens=12
                )
                assert answer.conclusion is not None
                found.append(answer.conclusion.mode)
                assert bool(answer.reasoning) == (found[-1] == "trace")
    assert modes[SUMS].count("trace") >= 5, modes
    assert modes[FACTS].count("none") >= 5, modes
