"""What the tests of training share: cheap collections of garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from ift_training import training_loop


@pytest.fixture(scope="session", autouse=True)
def imports_are_not_garbage() -> Iterator[None]:
    """Each training collects garbage at its end, which would look at all that was imported, again and again."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings draw no curves, which takes as long as their steps do; ``test_curves`` looks at those."""
    monkeypatch.setattr(training_loop, "plot", lambda *_: False)
