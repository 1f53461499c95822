"""What the commands show of an answer: thought apart from answer, colours by token, votes."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from ift_serve.cli.channels import ChannelPrinter, checked_colour, rgb, votes
from ift_serve.cli.reasoning import ReasoningOptions
from ift_serve.client import (
    AdaptiveTemperature,
    AnswerSpan,
    Auto,
    BestOf,
    Branch,
    BranchSummary,
    Conclusion,
    ConfidenceExit,
    Delta,
    EntropyExit,
    NoReasoning,
    Reasoning,
    Statistics,
    Token,
    Trace,
    Vote,
)

STATISTICS = Statistics(0.75, 0.25, 1.0, -3.0, 0.5)


def token(text: str, channel: str = "answer", statistics: Statistics | None = STATISTICS) -> Token:
    return Token(1, text, -0.5, (), statistics, text.encode(), channel)  # type: ignore[arg-type]


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_thought_is_apart_from_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    printer = ChannelPrinter()
    for delta in (Delta(0, "", reasoning="so "), Delta(0, "4", reasoning="four"), Delta(0, "2")):
        printer.show(delta)
    printer.end()
    shown = capsys.readouterr()
    assert shown.out == "42\n" and plain(shown.err).strip() == "so four"


@pytest.mark.parametrize("sizes", [[9], [1] * 9, [2, 3, 4]])
def test_colours_change_nothing_of_the_text(capsys: pytest.CaptureFixture[str], sizes: list[int]) -> None:
    """However tokens and texts come: a stop string holds text back, markers and end tokens are no text."""
    tokens = [
        token("<think>", "marker", None), token("why", "reasoning"), token("</think>", "marker", None), token("a"),
        token(""), token("é"), token(" b"), token("STOP"), token("</s>"),
    ]  # fmt: skip
    deltas, place = [], 0
    for size in sizes:
        deltas.append(Delta(0, "", tokens=tuple(tokens[place : place + size])))
        place += size
    deltas.insert(1, Delta(0, "aé b", reasoning="why"))
    printer = ChannelPrinter("entropy")
    for delta in deltas:
        printer.show(delta)
    printer.end()
    shown = capsys.readouterr()
    assert (plain(shown.out), plain(shown.err).strip()) == ("aé b\n", "why")


@pytest.mark.parametrize("colour", ["temperature", "entropy", "margin"])
def test_hot_is_red_and_cool_is_blue(colour: str) -> None:
    values = [0.0, 0.5, 1.0, 2.0, 50.0]
    made = [Statistics(max(0.0, 1 - v), 0.0, v, -1.0, v) for v in values]
    colours = [rgb(colour, token("x", statistics=one)) for one in made]
    assert all(a is not None and b is not None and a[0] <= b[0] and a[2] >= b[2] for a, b in pairwise(colours))
    assert colours[0] != colours[-1] and rgb(colour, token("x", statistics=None)) is None


def test_votes_mark_the_chosen() -> None:
    branches = (BranchSummary("4", 0.75, 3, 12, "eos", True), BranchSummary("", 0.5, 0, 9, "", False))
    lines = votes(Conclusion("vote", "4", 0.75, branches))
    assert lines[0] == "vote: 4 (confidence 0.750)" and len(lines) == 3
    assert lines[1].startswith("* 4 ") and lines[2].startswith("  - ") and "unfinished" in lines[2]
    assert votes(None) == votes(Conclusion("trace", "", 0.0)) == []


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (ReasoningOptions(), None),
        (ReasoningOptions("none"), NoReasoning()),
        (ReasoningOptions("trace", budget=9, early_exit="entropy"), Trace(9, early_exit=EntropyExit())),
        (ReasoningOptions("branch", width=4, answer="option"), Branch(4, span=AnswerSpan("option"))),
        (ReasoningOptions("vote", samples=5, weight="borda", vote_stop="all"), Vote(5, "borda", stop="all")),
        (ReasoningOptions("vote", answer_pattern="x+"), Vote(span=AnswerSpan("pattern", pattern="x+"))),
        (
            ReasoningOptions("best_of", samples=3, best_by="adherence", early_exit="confidence"),
            BestOf(3, "adherence", Trace(early_exit=ConfidenceExit())),
        ),
        (ReasoningOptions("auto", budget=7, width=3), Auto(Trace(7), Branch(3))),
    ],
)
def test_options_are_settings(options: ReasoningOptions, settings: Reasoning | None) -> None:
    assert options.settings() == settings


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (ReasoningOptions("think"), "--reasoning: 'think' is not one of none, trace"),
        (ReasoningOptions(budget=5), "--budget belongs to --reasoning trace or vote"),
        (ReasoningOptions("branch", samples=5), "--samples belongs to --reasoning vote or best_of; not to branch"),
        (ReasoningOptions("trace", vote_stop="all"), "--vote-stop belongs to --reasoning vote; not to trace"),
        (ReasoningOptions("trace", early_exit="soon"), "--early-exit: 'soon' is not one of entropy, confidence"),
        (ReasoningOptions(min_temperature=0.5), "belong to --adaptive"),
    ],
)
def test_options_that_do_not_belong_are_named(options: ReasoningOptions, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        options.arguments()


def test_other_options_go_as_they_are() -> None:
    given = ReasoningOptions(max_total_tokens=7, adaptive="entropy", max_temperature=2.0).arguments()
    assert given["max_total_tokens"] == 7 and given["adaptive"] == AdaptiveTemperature(max=2.0, rule="entropy")
    with pytest.raises(ValueError, match="--colour: 'red' is not one of temperature, entropy, margin"):
        checked_colour("red")
