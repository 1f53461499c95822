"""Strategies by name: those of this package, one that another package brings, and what classifies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.registry import CONTEXTUAL, STRATEGIES, registered, strategies
from ift_serve.engine.core.strategy import Strategy
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.reasoning import Auto, BestOf, Branch, Registered, Trace, Vote
from ift_serve.engine.protocol.results import FailureKind
from tests.support.engine_driver import Answer, Driver, generate, make_core
from tests.support.scripted_model import PROMPT, ScriptedModel, context, ids_of, reasoned, text_of, write

SHORTEST = '''
"""A strategy that another package brings: the shortest of several answers."""

from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.core.strategy import Strategy
from ift_serve.engine.protocol.generate import Conclusion
from ift_serve.engine.protocol.results import FailureKind


class Shortest(Strategy):
    streams = False

    def __init__(self, request, context):
        of = request.reasoning.settings.get("of", 2)
        if not 1 <= of <= 8:
            raise RefusedError(FailureKind.INVALID, f"of: {of}; must be 1 to 8", "reasoning.registered.settings.of")
        self.width = int(of)
        self._ended = []

    def on_end(self, control, branch, reason):
        self._ended.append(branch)
        if not control.live:
            self.conclude(control, reason)

    def conclude(self, control, reason):
        if self._ended:
            best = min(self._ended, key=lambda branch: branch.generated_count)
            control.reveal(best, 0)
            control.report(Conclusion(mode="shortest"))


def broken(request, context):
    raise KeyError("not what a factory may raise")


not_a_factory = 3
'''
POINTS = """[ift_serve.strategies]
shortest = {module}:Shortest
broken = {module}:broken
number = {module}:not_a_factory
missing = {module}:nothing
vote = {module}:Shortest
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An installed distribution with a module and its entry points."""
    module = "a_package_with_a_strategy"
    (tmp_path / f"{module}.py").write_text(SHORTEST)
    info = tmp_path / "a_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS.format(module=module))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield module
    sys.modules.pop(module, None)


def run(request: GenerateRequest, known: StrategyContext | None = None) -> Answer:
    texts = ["the quick brown fox", "fox"]
    model = ScriptedModel(lambda text, row: write([texts[row.seed % 2]])(text, row))
    driver = Driver(make_core(model, strategies(known or context())))
    driver.add(request)
    return driver.run()[request.request_id]


def asked(name: str, **settings: object) -> GenerateRequest:
    """A request for a registered strategy."""
    reasoning = Registered(name=name, settings=dict(settings))
    return generate("a", ids_of(PROMPT), strategy=name, reasoning=reasoning, temperature=1.0, ignore_eos=False)


def test_a_package_brings_a_strategy(package: str) -> None:
    answer = run(asked("shortest", of=6))
    assert text_of(answer.tokens[0]) == "fox</s>"
    assert answer.outputs[-1].conclusion is not None and answer.outputs[-1].conclusion.mode == "shortest"


def test_its_settings_are_its_own_to_refuse(package: str) -> None:
    failure = run(asked("shortest", of=9)).failure
    assert failure is not None and failure.field == "reasoning.registered.settings.of"


def test_what_cannot_be_loaded_or_takes_a_name_is_left_out(package: str, caplog: pytest.LogCaptureFixture) -> None:
    assert set(registered()) == {"shortest", "broken"}
    assert {record.args[0] for record in caplog.records if record.args} == {"number", "missing", "vote"}  # type: ignore[index]
    failure = run(asked("broken")).failure
    assert failure is not None and failure.kind is FailureKind.INTERNAL


def test_without_packages_there_are_only_the_own_ones() -> None:
    assert set(strategies(context())) >= set(STRATEGIES) | set(CONTEXTUAL)
    failure = run(asked("shortest")).failure
    assert failure is not None and failure.field == "strategy"


def test_settings_must_be_those_of_the_strategy() -> None:
    failure = run(generate("a", ids_of(PROMPT), strategy="vote", reasoning=Branch())).failure
    assert failure is not None and failure.kind is FailureKind.INVALID and failure.field == "reasoning"


@pytest.mark.parametrize("settings", [Trace(), Branch(), Vote(), BestOf()])
def test_without_a_tokenizer_what_reads_text_is_refused(settings: Trace | Branch | Vote | BestOf) -> None:
    temperature = 0.0 if isinstance(settings, Branch) else 1.0
    failure = run(reasoned(settings, temperature=temperature), StrategyContext(None, None)).failure
    assert failure is not None and failure.kind is FailureKind.UNFIT


@pytest.mark.parametrize(("mode", "width"), [("none", 3), ("trace", 3), ("branch", 1)])
def test_what_classifies_chooses(mode: str, width: int) -> None:
    known = replace(context(), classify=lambda request: mode)
    candidates = 1 if mode == "branch" else 3
    request = reasoned(Auto(trace=Trace(budget=20)), temperature=1.0, candidates=candidates)
    made: Strategy = strategies(known)["auto"](request)
    assert made.width == width
    answer = run(request, known)
    assert answer.failure is None
    conclusion = answer.outputs[-1].conclusion
    assert conclusion is not None and conclusion.mode == mode


def test_auto_branches_from_the_most_likely_tokens_at_any_temperature() -> None:
    texts = ["5 dogs", "8 dogs", "fox 9"]
    known = replace(context(), classify=lambda request: "branch")
    model = ScriptedModel(lambda text, row: write(texts if row.temperature == 0 or text else texts[::-1])(text, row))
    driver = Driver(make_core(model, strategies(known)))
    driver.add(reasoned(Auto(branch=Branch(width=2)), temperature=1.0))
    conclusion = driver.run()["a"].outputs[-1].conclusion
    assert conclusion is not None and len(conclusion.branches) == 2


def test_without_a_classifier_auto_is_refused() -> None:
    failure = run(reasoned(Auto())).failure
    assert failure is not None and failure.kind is FailureKind.UNFIT and failure.field == "reasoning.auto"
