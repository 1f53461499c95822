"""What callbacks of strategies may take, and what they cost those that need none."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.core.strategy import Branch, Control, Strategy
from ift_serve.engine.protocol.results import FailureKind, FinishReason
from ift_serve.engine.sequences.step import SampledToken
from tests.decoding.test_rounds import PROMPT, core_of, request
from tests.support.engine_driver import Clock, Driver, generate, make_core, solo
from tests.support.paged_oracle import PagedOracle


@pytest.mark.parametrize(("seconds", "fails"), [(0.2, False), (2.0, False), (11.0, True)])
def test_slow_callbacks_are_counted_and_too_slow_ones_end_their_request(seconds: float, fails: bool) -> None:
    clock = Clock()

    class Slow(Strategy):
        def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
            clock.now += seconds

    driver = Driver(make_core(PagedOracle(64), {**STRATEGIES, "doing": lambda message: Slow()}, clock))
    driver.add(request(max_new_tokens=3, ignore_eos=True), generate("b", PROMPT))
    driver.run()
    assert (driver.answers["a"].failure is not None) is fails
    assert driver.answers["b"].failure is None
    stats = driver.core.stats()
    assert stats.slow_callbacks == (1 if fails else 3)
    assert stats.strategy_seconds == pytest.approx(seconds * stats.slow_callbacks)


def test_a_callback_that_computes_for_a_second_ends_its_request() -> None:
    class Busy(Strategy):
        def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
            begun = time.thread_time()
            while time.thread_time() < begun + 1.05:
                pass

    driver = core_of(lambda message: Busy())
    driver.add(request(max_new_tokens=3))
    failure = driver.run()["a"].failure
    assert failure is not None and failure.kind is FailureKind.INTERNAL


def test_a_passive_strategy_is_never_called_and_waits_for_nobody() -> None:
    class Passive(Strategy):
        passive = True
        width = 3

        def on_token(self, *_: Any) -> None:
            raise AssertionError

        on_end = on_token  # type: ignore[assignment]

    driver = core_of(lambda message: Passive(), rows=2)
    driver.add(request())
    assert driver.run()["a"].tokens == solo(request(strategy="sample")).tokens
