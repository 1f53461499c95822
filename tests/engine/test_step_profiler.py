"""Traces of steps: as many as asked for, with what the model computed in them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.runner.model_runner import ModelRunner
from tests.support.engine_driver import Driver, generate
from tests.support.models import tiny_llama

PROMPT = [9, 10, 11]


def make(model: Path, profile: Path | None) -> Driver:
    config = EngineConfig(
        model=str(tiny_llama(model)),
        total_blocks=16,
        threads=1,
        profile=None if profile is None else str(profile),
        profile_steps=3,
    )
    return Driver(EngineCore(ModelRunner(config), config, STRATEGIES))


def answer(driver: Driver, name: str, tokens: int) -> list[int]:
    driver.add(generate(name, PROMPT, max_new_tokens=tokens, ignore_eos=True))
    return driver.run()[name].tokens[0]


def events(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return [event for event in found if event.get("ph") == "X"]


def test_a_trace_has_the_steps_that_follow_and_what_they_computed(tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    driver = make(tmp_path / "model", traces)
    plain = answer(driver, "a", 8)
    assert not list(traces.iterdir()), "nobody has asked yet"
    driver.core.profile()
    assert answer(driver, "b", 8) == plain, "being watched changes nothing"
    driver.core.profile()
    answer(driver, "c", 2)
    assert len(list(traces.iterdir())) == 1, "the second trace still lacks a step"
    answer(driver, "d", 1)
    first, second = (events(path) for path in sorted(traces.iterdir()))
    for trace in (first, second):
        steps = [event for event in trace if event["name"] == "step" and event["cat"] == "user_annotation"]
        assert len(steps) == 3
        for step in steps:
            begin, end = step["ts"], step["ts"] + step["dur"]
            inside = {event["name"] for event in trace if begin <= event["ts"] < end}
            assert "aten::index_select" in inside or "aten::embedding" in inside, "the tokens' embeddings are looked up"


def test_without_a_directory_the_operator_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    driver = make(tmp_path / "model", None)
    driver.core.profile()
    assert len(answer(driver, "a", 2)) == 2 and "--profile" in caplog.text


def test_a_directory_that_cannot_be_made_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        make(tmp_path / "model", tmp_path / "file" / "traces")
