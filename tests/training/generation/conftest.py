"""Seeds in a file, and runs against servers as the command makes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

_SEEDS = (
    ("Name three animals that live in the sea.", "", "Whale, shark, octopus"),
    ("Write a short letter to a friend who has moved away.", "", "Dear friend, come back."),
    ("Put the sentence into the past tense.", "She walks home.", "She walked home."),
    ("Explain how a bicycle stays upright while it moves.", "", "By steering."),
    ("Sort the numbers from small to large.", "3, 1, 2", "1, 2, 3"),
    ("Which season comes after autumn in the north?", "", "Winter"),
    ("Add the prices of everything on the list.", "bread 3, milk 2", "5"),
    ("Suggest a name for a small bakery by the river.", "", "River Rolls"),
    ("Say in one sentence what a thermometer is for.", "", "It measures heat."),
    ("Describe your favourite meal with five adjectives.", "", "Hot, sweet, soft, rich, old"),
)


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    path = tmp_path / "seeds.jsonl"
    rows = ({"instruction": i, "context": c, "output": o} for i, c, o in _SEEDS)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
