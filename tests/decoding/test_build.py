"""The engine as it is put together for serving, with a real model."""

from __future__ import annotations

from pathlib import Path

import pytest

from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.frontend.engine_client import EngineStartError


async def test_a_model_that_is_not_there_is_told_without_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = local_engine(EngineConfig(model=str(tmp_path / "missing")))
    with pytest.raises(EngineStartError, match="missing"):
        await engine.start()
    assert "Traceback" not in capfd.readouterr().err
