"""The embedded model behind a real server: records that it made and a program verified, by the commands themselves."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ift_serve.checks import judge_all
from ift_serve.embedded import model_path
from ift_training.data.generation.store import RecordStore
from ift_training.data.lines import line_of
from ift_training.data.procedural import draw, family
from ift_training.data.records import Record
from ift_training.data.settings import SourceSettings
from ift_training.data.sources import FileSource
from tests.support.generated import records
from tests.support.threaded_server import threaded_server

_CLI = [sys.executable, "-c", "from ift_serve.cli import main; main()", "data"]
_ENVIRONMENT = os.environ | {"COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from threaded_server(model_path(), tmp_path_factory.mktemp("no-adapters"))


def _recipe(folder: Path, **changes: Any) -> Path:
    rng = random.Random(0)
    seeds = [Record.of_example(draw(family(name), "train", rng)) for name in ("list_items", "sort", "extract") * 4]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(line_of(seed)) + "\n" for seed in seeds))
    recipe = {
        "seeds": "seeds.jsonl", "store": str(folder / "r.sqlite"), "output": str(folder / "new.jsonl"), "rounds": 2,
        "operations": {"variation": 1}, "in_flight": 8,
        "verifiable": {"checks": ["end", "begin", "bullets"], "samples": 8, "variations": 2},
        "answerer": {"decoding": {"temperature": 0.8, "max_new_tokens": 40}},
    } | changes  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_CLI, *arguments], capture_output=True, text=True, env=_ENVIRONMENT, check=True, timeout=150
    )


def test_the_command_evolves_reports_and_writes_what_the_trainer_reads(embedded: str, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path)
    report = json.loads(_run("evolve", str(recipe), "--server", embedded, "--json").stdout)
    found = report["steps"]["evolve.variation"]
    assert found["kept"] > 2 and report["generated_tokens"] > 0 and report["calls"] >= found["kept"]
    source = FileSource(SourceSettings(file=tmp_path / "new.jsonl"))
    assert len(source) == found["kept"]
    for index in range(len(source)):
        record, _ = source.record(index)
        assert record.checks and judge_all(record.checks, record.response)
    made = [record for record in records(tmp_path / "r.sqlite") if record.lineage.parents]
    assert all(len(record.lineage.model) >= 16 and record.lineage.added for record in made)
    shown = json.loads(_run("report", str(tmp_path / "r.sqlite"), "--record", made[0].id, "--json").stdout)
    assert [each["lineage"]["step"] for each in shown] == ["evolve.variation", "seed"]
    table = _run("report", str(tmp_path / "r.sqlite"), "--output", str(tmp_path / "all.jsonl"), "--seeds").stdout
    assert "evolve.variation" in table and "tokens read" in table
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == found["kept"] + 12


def test_a_command_that_is_killed_goes_on_where_it_was(embedded: str, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, in_flight=2)
    command = [*_CLI, "evolve", str(recipe), "--server", embedded]
    process = subprocess.Popen(command, env=_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    store = tmp_path / "r.sqlite"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if store.exists():
            with RecordStore(store) as opened:
                if len(opened.calls) >= 8:
                    break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run had ended before it was killed"
    with RecordStore(store) as opened:
        kept = len(opened.calls)
    _run("evolve", str(recipe), "--server", embedded)
    with RecordStore(store) as opened:
        assert len(opened.calls) > kept >= 8
    (whole := tmp_path / "whole").mkdir()
    _run("evolve", str(_recipe(whole, in_flight=2)), "--server", embedded)
    assert [record.id for record in records(store)] == [record.id for record in records(whole / "r.sqlite")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operations": {"variety": 1}}, "operations"),
        ({"seeds": "nowhere.jsonl"}, "nowhere.jsonl: cannot be read"),
        ({"answerer": {"adapter": "nobody"}}, "nobody"),
        ({"answerer": {"server": "127.0.0.1:1"}}, "127.0.0.1:1"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(
    embedded: str, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    command = [*_CLI, "evolve", str(_recipe(tmp_path, **change)), "--server", embedded]
    done = subprocess.run(command, capture_output=True, text=True, env=_ENVIRONMENT, check=False, timeout=120)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
