"""What the tests of training share: a base, and what makes trainings quick."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from ift_training import training_loop
from tests.support.models import tiny_llama


@pytest.fixture(scope="session", autouse=True)
def imports_are_not_garbage() -> Iterator[None]:
    """Each training collects garbage at its end, which would look at all that was imported, again and again."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, which tests copy before they change it."""
    return tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings draw no curves, which takes as long as their steps do; ``test_curves`` looks at those."""
    monkeypatch.setattr(training_loop, "plot", lambda *_: False)
