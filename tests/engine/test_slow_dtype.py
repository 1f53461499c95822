"""A dtype by force that the processor does not multiply is named at the start, with what to choose instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.runner import placement
from ift_serve.engine.runner.model_runner import ModelRunner
from tests.support.models import tiny_llama


@pytest.mark.parametrize(
    ("dtype", "device", "has_products", "told"),
    [
        ("bfloat16", "cpu", False, 1),
        ("bfloat16", "cpu", True, 0),
        ("bfloat16", "cuda", False, 0),
        ("auto", "cpu", False, 0),
        ("float32", "cpu", False, 0),
    ],
)
def test_only_bfloat16_by_force_without_products_is_warned_of(
    dtype: str,
    device: str,
    has_products: bool,
    told: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(placement, "has_bf16_products", lambda: has_products)
    placement.warn_of_slow_dtype(EngineConfig.model_validate({"model": "x", "dtype": dtype}), device)
    assert caplog.text.count("--dtype auto") == told


def test_an_engine_says_it_once_as_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(placement, "has_bf16_products", lambda: False)
    ModelRunner(EngineConfig(model=str(tiny_llama(tmp_path)), dtype="bfloat16", total_blocks=24, threads=1))
    assert caplog.text.count("--dtype auto") == 1
