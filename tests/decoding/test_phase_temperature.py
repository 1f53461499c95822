"""A temperature for thoughts and one for answers (case 36)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ift_serve.decoding.registry import strategies
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.reasoning import BestOf, Trace, Vote
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engine.sequences.step import SamplingRow
from tests.support.engine_driver import Driver, generate, make_core
from tests.support.scripted_model import PROMPT, Next, ScriptedModel, context, driver_of, ids_of, reasoned, write

AGAIN = "<think>a dog</think>8<think>fox</think>9"
"""A thought, an answer, a thought that is opened again, an answer."""


def drawn_at(request: GenerateRequest, text: str) -> list[tuple[str, float]]:
    """What was drawn and kept, with the temperature of each draw, runs of one temperature together."""
    seen: dict[int, list[tuple[str, float]]] = {}

    def script(shown: str, row: SamplingRow) -> Next:
        said = write([text])(shown, row)
        seen.setdefault(row.seed, []).append((shown, row.temperature))
        return said

    driver = driver_of(script)
    driver.add(request)
    assert driver.run()["a"].failure is None
    draws = next(iter(seen.values()))
    return [(before, temperature) for before, temperature in draws if not before.startswith("</")]


def phases(draws: list[tuple[str, float]]) -> list[float]:
    """Temperatures in the order in which they change."""
    return [t for index, (_, t) in enumerate(draws) if not index or draws[index - 1][1] != t]


def test_it_switches_on_the_first_token_of_the_answer_and_back_where_a_thought_is_opened_again() -> None:
    request = reasoned(Trace(budget=40), temperature=0.25, reasoning_temperature=1.5)
    draws = drawn_at(request, AGAIN)
    assert phases(draws[1:]) == [1.5, 0.25, 1.5, 0.25]
    by_text = dict(draws[1:])
    assert by_text["<think>a dog"] == 1.5, "the marker is drawn as the thought is"
    assert by_text["<think>a dog</think>"] == 0.25


def test_unset_inherits() -> None:
    assert phases(drawn_at(reasoned(Trace(budget=40), temperature=0.75), AGAIN)) == [0.75]


@pytest.mark.parametrize("settings", [Vote(samples=6, trace=Trace(budget=9)), BestOf(samples=2, trace=Trace(budget=9))])
def test_samples_that_begin_later_begin_as_the_first(settings: Vote | BestOf) -> None:
    temperatures: dict[int, list[float]] = {}

    def script(shown: str, row: SamplingRow) -> Next:
        temperatures.setdefault(row.seed, []).append(row.temperature)
        return write(["<think>5</think>" + "89"[row.seed % 2]])(shown, row)

    driver = driver_of(script)
    driver.add(reasoned(settings, temperature=0.5, reasoning_temperature=1.25))
    driver.run()
    assert len(temperatures) > 1
    assert {tuple(sequence) for sequence in temperatures.values()} == {(0.5, 1.25, 1.25, 0.5, 0.5)}


def test_a_thought_that_a_plain_request_opens_has_it_too() -> None:
    request = generate("a", ids_of(PROMPT), temperature=0.5, reasoning_temperature=1.0, max_new_tokens=40)
    assert phases(drawn_at(request, AGAIN)) == [0.5, 1.0, 0.5, 1.0, 0.5]


def test_a_thought_that_the_prompt_opens_has_it_from_its_first_token() -> None:
    prompt = [*ids_of(PROMPT), *ids_of("<think>")]
    segments = bytes(len(prompt))
    request = generate("a", prompt, segment_ids=segments, temperature=0.5, reasoning_temperature=1.0, max_new_tokens=9)
    assert phases(drawn_at(request, "5</think>8")) == [1.0, 0.5]


def test_without_markers_it_is_refused() -> None:
    known = replace(context(), phases=None)
    driver = Driver(make_core(ScriptedModel(write(["fox"])), strategies(known)))
    driver.add(generate("a", ids_of(PROMPT), temperature=0.5, reasoning_temperature=1.0))
    failure = driver.run()["a"].failure
    assert failure is not None and failure.kind is FailureKind.INVALID
    assert failure.field == "sampling.reasoning_temperature"
