"""What is guessed, how sure that is, and when it is worth a step's rows."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.engine.drafting.acceptance import AcceptanceRates, kind_of
from ift_serve.engine.drafting.draft_planner import LONGEST_DRAFT, MOST_SEQUENCES, DraftPlanner
from ift_serve.engine.drafting.prompt_lookup import LONGEST, PromptLookup
from ift_serve.engine.drafting.step_costs import StepCosts
from ift_serve.engine.sequences.sequence import Sequence


@settings(max_examples=300, deadline=None)
@given(tokens=st.lists(st.integers(0, 4), min_size=1, max_size=60), grown=st.lists(st.integers(0, 4), max_size=20))
def test_a_guess_is_what_followed_the_longest_text_that_is_alike(tokens: list[int], grown: list[int]) -> None:
    """Against a search through the whole text; of places that are alike for as long, the lookup knows the latest."""
    lookup = PromptLookup()
    for token in grown:
        lookup.guess(tokens, 3)
        tokens.append(token)
    guessed, alike = lookup.guess(tokens, 5)
    end = len(tokens)
    lengths = {
        place: next(n for n in range(LONGEST, -1, -1) if n <= place and tokens[place - n : place] == tokens[end - n :])
        for place in range(2, end)
    }
    places = [place for place, length in lengths.items() if length >= 2]
    if not places:
        assert (guessed, alike) == ([], 0)
        return
    recent = places[-6:]
    best = max(recent, key=lambda place: (lengths[place], place))
    text = tokens[best:]
    while len(text) < 5:
        text += text[-(end - best) :]
    assert (guessed, alike) == (text[:5], lengths[best])


def test_rates_follow_what_comes_true_and_a_sequence_leans_on_the_others() -> None:
    common = AcceptanceRates()
    one, other = AcceptanceRates(common), AcceptanceRates(common)
    before = other.rate(2)
    for _ in range(60):
        one.note(2, 3, failed=False)
    assert one.rate(2) > 0.95 and before < other.rate(2) < one.rate(2)
    for _ in range(40):
        other.note(2, 0, failed=True)
    assert other.rate(2) < 0.3 < one.rate(2)
    assert [kind_of(n) for n in (2, 3, 4, 5, 6, 8, 9, 15, 16)] == [0, 1, 2, 2, 3, 3, 4, 4, 5]


def test_costs_are_medians_of_what_was_measured_and_grow_with_rows() -> None:
    costs = StepCosts()
    assert costs.seconds(1) == 1.0 and 1.0 < costs.seconds(8) < 2.0
    for seconds in (0.010, 0.011, 0.5, 0.009, 0.010):
        costs.note(1, seconds)
    assert costs.seconds(1) == 0.010, "one slow step says nothing"
    costs.note(4, 0.008)
    assert costs.seconds(4) == 0.010, "more rows never take less"
    costs.note(8, 0.03)
    assert costs.seconds(6) == costs.seconds(8) == 0.03 < costs.seconds(9)
    for _ in range(500):
        costs.note(1, 0.010)
    assert costs.seconds(8) < 0.03, "what was measured long ago is tried again"


def test_measured_costs_hold_for_every_number_of_rows_and_follow_the_latest_steps() -> None:
    costs = StepCosts([0.010, 0.012, 0.011, 0.016])
    assert [costs.seconds(rows) for rows in (1, 2, 3, 4)] == [0.010, 0.012, 0.012, 0.016]
    assert costs.seconds(6) == pytest.approx(0.020), "as each of rows 3 and 4 did"
    for seconds in (0.020, 0.021, 0.9, 0.020, 0.019):
        costs.note(1, seconds)
    assert costs.seconds(1) == pytest.approx(0.020)
    assert costs.seconds(4) == pytest.approx(0.032), "one row takes twice as long, so four do"


def test_steps_with_drafts_and_of_several_sequences_have_factors_of_their_own() -> None:
    costs = StepCosts([0.010 + 0.001 * rows for rows in range(16)])
    for _ in range(5):
        costs.note(8, 0.017, 8)
    assert costs.seconds(8, 8) == pytest.approx(0.017)
    assert costs.seconds(10, 8) == pytest.approx(0.019), "none was seen: as those without drafts"
    for _ in range(5):
        costs.note(10, 0.038, 8)
    assert costs.seconds(8, 8) == pytest.approx(0.017) and costs.seconds(12, 8) == pytest.approx(0.042)
    assert costs.seconds(10, 5) == pytest.approx(0.038), "about as many sequences"
    assert costs.seconds(2, 1) == pytest.approx(0.011), "nothing was seen: as it was measured"
    costs.note(1, 0.020, 1)
    assert costs.seconds(2, 1) == pytest.approx(0.022)
    for _ in range(400):
        costs.note(8, 0.017, 8)
    assert costs.seconds(10, 8) == pytest.approx(0.019), "it is tried again"


def test_drafts_that_do_not_pay_beside_others_are_given_up_and_pay_alone() -> None:
    texts = [Text([1, 2, 3, 4, 5, 6, 7, 8] * 4, number) for number in range(8)]
    planner = DraftPlanner(measured=[1.0 + 0.01 * rows for rows in range(16)], most_sequences=8)
    drafted = []
    for _ in range(30):
        lengths = [len(tokens) for tokens in planned(planner, texts)]
        drafted.append(sum(lengths))
        planner.note(60.0 if sum(lengths) else 1.0)
    assert all(drafted[:3]) and drafted[3:] == [0] * 27, "one slow step says nothing"
    assert len(planned(planner, texts[:1])[0]) == LONGEST_DRAFT


def test_a_planner_that_was_told_costs_drafts_without_trying_any() -> None:
    text = Text([1, 2, 3, 4, 5, 6, 7, 8] * 4)
    assert len(planned(DraftPlanner(measured=[1.0] * 16), [text])[0]) == LONGEST_DRAFT
    assert planned(DraftPlanner(measured=[float(rows) for rows in range(1, 17)]), [text]) == [[]]


class Text:
    """A sequence as far as the planner looks at it."""

    def __init__(self, tokens: list[int], number: int = 0) -> None:
        self.tokens = tokens
        self.number = number
        self.drafts: object = None


def planned(planner: DraftPlanner, texts: list[Text], room: int = 100, longest: int = 100) -> list[list[int]]:
    found = planner.plan(cast(list[Sequence], texts), room, [longest] * len(texts))
    assert all(len(tokens) <= min(longest, LONGEST_DRAFT) for tokens in found)
    assert sum(map(len, found)) <= room
    return found


def write(planner: DraftPlanner, text: list[int], seconds: Any, copies: int = 1) -> tuple[int, int]:
    """Steps and drafted tokens that it takes ``copies`` sequences to write ``text``. ``seconds``: of a step by rows."""
    sequences = [Text(text[:1] + [1000 + number]) for number in range(copies)]
    targets = [sequence.tokens + text for sequence in sequences]
    steps = drafted = 0
    while any(len(s.tokens) < len(t) for s, t in zip(sequences, targets, strict=True)):
        live = [(s, t) for s, t in zip(sequences, targets, strict=True) if len(s.tokens) < len(t)]
        drafts = planned(planner, [s for s, _ in live])
        steps += 1
        for (sequence, target), tokens in zip(live, drafts, strict=True):
            drafted += len(tokens)
            come = 0
            rest = target[len(sequence.tokens) :]
            while come < len(tokens) and come < len(rest) and tokens[come] == rest[come]:
                come += 1
            sequence.tokens += rest[: come + 1]
        planner.note(seconds(len(live) + sum(map(len, drafts))))
    return steps, drafted


COPYING = [i * i % 37 for i in range(37)] * 12
FRESH = [(i * 7919 + i * i * 104729) % 50021 for i in range(400)]


def test_text_that_repeats_itself_takes_few_steps_where_rows_cost_little() -> None:
    steps, _ = write(DraftPlanner(), COPYING, lambda rows: 0.03 + 0.001 * rows)
    assert steps < len(COPYING) / 4


def test_nothing_is_drafted_where_rows_cost_what_tokens_are_worth() -> None:
    steps, drafted = write(DraftPlanner(), COPYING, lambda rows: 0.03 * rows)
    assert steps > len(COPYING) * 0.9 and drafted < len(COPYING) * 0.2


def test_text_that_is_new_costs_no_rows() -> None:
    assert write(DraftPlanner(), FRESH, lambda rows: 0.03 + 0.001 * rows) == (len(FRESH), 0)


def test_guesses_that_fail_are_given_up_and_taken_up_again_when_they_come_true() -> None:
    """Pairs of tokens that come again, each time followed by another one."""
    misleading = [token for i in range(200) for token in (5, 6, 100 + i)]
    planner = DraftPlanner()
    _, drafted = write(planner, misleading, lambda rows: 0.03 + 0.003 * rows)
    assert drafted < 120
    steps, _ = write(planner, COPYING, lambda rows: 0.03 + 0.003 * rows)
    assert steps < len(COPYING) / 2


def test_with_many_callers_fewer_tokens_are_drafted_for_each() -> None:
    def seconds(rows: int) -> float:
        return 0.03 + 0.004 * max(0, rows - 8)

    alone, _ = write(DraftPlanner(), COPYING, seconds)
    eight, _ = write(DraftPlanner(most_sequences=8), COPYING, seconds, copies=8)
    assert alone < eight < len(COPYING) * 1.02


@pytest.mark.parametrize("count", [MOST_SEQUENCES + 1, 64])
def test_a_full_batch_is_not_looked_through(count: int) -> None:
    texts = [Text([1, 2, 3, 1, 2]) for _ in range(count)]
    assert planned(DraftPlanner(), texts) == [[]] * count
    assert all(text.drafts is None for text in texts)


def test_neither_room_nor_length_is_exceeded() -> None:
    planner = DraftPlanner()
    for room, longest in ((0, 9), (3, 9), (50, 2), (50, 0)):
        planned(planner, [Text([1, 2, 3, 4] * 9) for _ in range(3)], room, longest)


def test_a_step_that_was_not_planned_says_nothing_of_costs() -> None:
    planner = DraftPlanner()
    planned(planner, [Text([1, 2])])
    planner.note(0.01)
    planner.note(5.0)
    assert planner._costs.seconds(1) == 0.01
