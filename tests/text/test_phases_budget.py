"""How long a thought may be, and how it is ended. Numbers in names are those of known failures of other servers."""

from __future__ import annotations

from itertools import chain, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ift_serve.text.message import Segment
from ift_serve.text.phases import (
    Channel,
    PerPhase,
    Phase,
    PhaseError,
    PhaseSettings,
    PhaseState,
    ThoughtMarkers,
    ThoughtStart,
)
from tests.support.phases import BLANK, CLOSE, END, IDS, OPEN, TYPED, begin, builder, merging, words, write

THOUGHT_PROMPT = [10, 11, OPEN, BLANK]


@pytest.mark.parametrize("budget", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("opened", [True, False])
def test_case_01_a_thought_has_exactly_its_budget_counting_the_first(budget: int, opened: bool) -> None:
    state = begin(THOUGHT_PROMPT if opened else [10], budget=budget)
    written = write(state, words() if opened else chain([OPEN], words()), limit=budget + 10)
    thought = written.channel(Channel.REASONING)
    assert thought == list(range(100, 100 + budget))
    assert written.token_ids[(not opened) + budget] == CLOSE
    assert written.channel(Channel.ANSWER)[0] == 100 + budget


def test_case_01_a_thought_that_ends_within_its_budget_is_left_alone() -> None:
    written = write(begin(THOUGHT_PROMPT, budget=4), [100, 101, 102, CLOSE, 200])
    assert written.token_ids == [100, 101, 102, CLOSE, 200]
    assert written.state.forced_tokens == 0 and written.channel(Channel.ANSWER) == [200]


@pytest.mark.parametrize("prompt", [THOUGHT_PROMPT, [10]])
def test_case_02_a_budget_of_zero_closes_at_once_and_there_is_an_answer(prompt: list[int]) -> None:
    state = begin(prompt, budget=0)
    written = write(state, words() if OPEN in prompt else chain([OPEN], words()), limit=8)
    assert written.channel(Channel.REASONING) == []
    assert written.channel(Channel.ANSWER)
    assert state.phase is Phase.ANSWER and state.reasoning_tokens == 0


def test_case_03_a_second_close_tag_after_a_forced_close_is_swallowed() -> None:
    written = write(begin(THOUGHT_PROMPT, budget=2), [100, 101, 102, CLOSE, 103])
    assert written.token_ids == [100, 101, CLOSE, 102, CLOSE, 103]
    assert written.channel(Channel.ANSWER) == [102, 103]
    assert written.channel(Channel.MARKER) == [CLOSE, CLOSE]


def test_case_03_a_second_typed_close_tag_is_swallowed_once() -> None:
    """Where a marker is text, the model may close late once; what it writes of it later is text."""
    settings = PhaseSettings(IDS, budget=1, markers_anywhere=False)
    written = write(PhaseState.begin(settings, THOUGHT_PROMPT), [100, 101, CLOSE, 102, CLOSE, 103])
    assert written.channel(Channel.ANSWER) == [101, 102, CLOSE, 103]


def test_case_04_a_reopened_thought_gets_what_is_left() -> None:
    written = write(begin(THOUGHT_PROMPT, budget=5), [100, 101, CLOSE, OPEN, *range(102, 120)], limit=12)
    assert written.channel(Channel.REASONING) == [100, 101, 102, 103, 104]
    assert written.token_ids[:8] == [100, 101, CLOSE, OPEN, 102, 103, 104, CLOSE]


def test_case_04_a_model_that_opens_for_ever_is_closed_each_time_and_ends() -> None:
    state = begin(THOUGHT_PROMPT, budget=2)
    written = write(state, chain([100, 101], repeat(OPEN, 5), [200, END]))
    assert written.token_ids == [100, 101, CLOSE, *[OPEN, CLOSE] * 5, 200]
    assert written.channel(Channel.REASONING) == [100, 101]
    assert written.channel(Channel.ANSWER) == [200]
    assert state.spent == 2 and state.remaining == 0


def test_case_05_thoughts_of_earlier_turns_do_not_count() -> None:
    prompt = [OPEN, 20, 21, 22, CLOSE, 23, 24, OPEN, BLANK]
    written = write(begin(prompt, budget=3), words(), limit=10)
    assert len(written.channel(Channel.REASONING)) == 3


def test_case_05_earlier_turns_are_told_by_segments_too() -> None:
    template, instruction, response = Segment.TEMPLATE, Segment.INSTRUCTION, Segment.RESPONSE
    #         earlier answer, its thought never closed;  question;                 the template
    prompt = [OPEN, 20, 21, 22, 30, 31, 40, 41]
    segments = bytes([response] * 4 + [instruction] * 2 + [template] * 2)
    state = begin(prompt, segments, budget=3)
    assert state.phase is Phase.ANSWER and state.spent == 0


@pytest.mark.parametrize("known", [True, False])
def test_case_05_a_resumed_thought_counts_what_it_has(known: bool) -> None:
    prompt = [10, OPEN, BLANK, 20, 21, BLANK, 22]
    segments = bytes([Segment.INSTRUCTION, Segment.TEMPLATE, Segment.TEMPLATE, *[Segment.RESPONSE] * 4])
    state = begin(prompt, segments if known else b"", budget=6)
    assert state.phase is Phase.THOUGHT and state.spent == 4
    written = write(state, words(), limit=10)
    assert written.channel(Channel.REASONING) == [100, 101]
    assert state.reasoning_tokens == 2, "what the prompt has is not generated"


def test_case_05_a_resumed_thought_that_is_too_long_is_closed_at_once() -> None:
    state = begin([10, OPEN, 20, 21, 22], budget=2)
    assert state.expected == (CLOSE,)


def test_case_06_the_forced_message_comes_once_with_exactly_its_ids() -> None:
    message = (50, 51, CLOSE, 52)
    written = write(begin(THOUGHT_PROMPT, budget=2, closing=message), words(), limit=10)
    assert written.token_ids == [100, 101, *message, 102, 103, 104, 105]
    assert written.channel(Channel.REASONING) == [100, 101, 50, 51]
    assert written.channel(Channel.ANSWER)[0] == 52
    assert written.state.forced_tokens == 4


def test_case_06_a_message_that_the_model_has_begun_is_gone_on_with() -> None:
    written = write(begin(THOUGHT_PROMPT, budget=3, closing=(50, 51, CLOSE)), [100, 50, 51, 200])
    assert written.token_ids == [100, 50, 51, CLOSE, 200]


def test_case_06_a_marker_that_is_half_there_is_completed() -> None:
    markers = ThoughtMarkers.of_ids([6, 7], [7, 8, 9])
    settings = PhaseSettings(markers, budget=3, closing=(50, 7, 8, 9, 52))
    written = write(PhaseState.begin(settings, [6, 7]), [100, 101, 7, 200])
    assert written.token_ids == [100, 101, 7, 8, 9, 52, 200]
    assert written.channel(Channel.REASONING) == [100, 101]
    assert written.channel(Channel.ANSWER) == [52, 200]
    # The marker's first token, which the model drew, turned out to be no thought.
    assert written.state.spent == 2


def test_case_06_nothing_is_forced_within_a_character() -> None:
    tokenizer = merging()
    settings = builder(tokenizer).settings(pair=TYPED, budget=2, closing_message=" stop ")
    ids = tokenizer.encode("a日b").ids
    assert len(ids) == 5, "the character is three tokens"
    written = write(PhaseState.begin(settings, tokenizer.encode(TYPED.opening).ids), ids, limit=40)
    text = tokenizer.decode(written.token_ids)
    assert text == f"a日 stop {TYPED.closing}b"
    assert written.state.spent == 4, "the budget of two, and the rest of the character"


def test_case_06_a_character_that_never_ends_does_not_hold_it_up() -> None:
    settings = PhaseSettings(ThoughtMarkers(IDS.opening, IDS.closing, partial={200: b"\xe6"}), budget=2)
    written = write(PhaseState.begin(settings, [OPEN]), repeat(200), limit=20)
    assert written.token_ids.index(CLOSE) <= 2 + 3


def test_case_07_drafts_are_cut_where_the_phase_says() -> None:
    """Tokens that are drafted are observed by a copy; what is kept of them equals a run without drafts."""
    plain = write(begin(THOUGHT_PROMPT, budget=4), words(), limit=12).token_ids
    state, model, kept = begin(THOUGHT_PROMPT, budget=4), words(), list[int]()
    draft = [next(model) for _ in range(3)]
    while len(kept) < 12:
        ahead = state.copy()
        accepted = 0
        while accepted < len(draft) and not ahead.expected:
            ahead.observe(draft[accepted])
            accepted += 1
        # The rest of the draft was made for a thought that does not go on.
        state.observe_all(draft[:accepted])
        kept += [*draft[:accepted], *state.expected]
        state.observe_all(state.expected)
        draft = draft[accepted:] + [next(model) for _ in range(3)]
    assert kept[:12] == plain


def test_case_09_an_operators_cap_lowers_the_budget_and_says_so() -> None:
    settings = PhaseSettings(IDS, budget=50, minimum=20).capped(8)
    assert (settings.budget, settings.minimum) == (8, 8)
    assert PhaseSettings(IDS).capped(8).budget == 8
    assert PhaseSettings(IDS, budget=3).capped(8).budget == 3
    assert PhaseSettings(IDS, budget=3).capped(None).budget == 3


def test_case_10_a_total_budget_counts_the_thoughts_of_all_turns() -> None:
    instruction, template, response = Segment.INSTRUCTION, Segment.TEMPLATE, Segment.RESPONSE
    prompt = [30, OPEN, 20, 21, CLOSE, 22, 31, OPEN, BLANK]
    segments = bytes([instruction, template, *[response] * 2, template, response, instruction, template, template])
    state = begin(prompt, segments, budget=9, total_budget=5)
    assert len(write(state, words(), limit=12).channel(Channel.REASONING)) == 3
    assert begin(prompt, segments, budget=9, total_budget=1).expected == (CLOSE,)


def test_case_12_each_branch_has_its_own_budget_and_recomputing_changes_nothing() -> None:
    state = begin(THOUGHT_PROMPT, budget=4)
    state.observe_all([100, 101])
    fork = state.copy()
    first = write(state, words(), limit=6).token_ids
    again = begin(THOUGHT_PROMPT, budget=4)
    again.observe_all([100, 101, *first])
    assert again == state
    assert write(fork, words(200), limit=3).token_ids == [200, 201, CLOSE]


def test_case_27_before_the_minimum_neither_a_marker_nor_an_end_is_possible() -> None:
    state = begin(THOUGHT_PROMPT, minimum=2, budget=10)
    for token in (100, 101):
        assert state.forbidden == (CLOSE,) and not state.may_end
        state.observe(token)
    assert state.forbidden == () and state.may_end


def test_case_27_a_typed_marker_is_forbidden_at_its_last_token_only() -> None:
    markers = ThoughtMarkers.of_ids([6], [7, 8])
    state = PhaseState.begin(PhaseSettings(markers, minimum=5), [6])
    assert not state.forbidden
    state.observe(7)
    assert state.forbidden == (8,)


def test_case_36_the_temperature_changes_with_the_first_answer_token_and_back() -> None:
    temperatures = PerPhase(thought=0.9)
    written = write(begin(THOUGHT_PROMPT), [100, 101, CLOSE, 200, OPEN, 102, CLOSE, 201])
    chosen = [temperatures.choose(phase, 0.1) for phase in written.phases if phase is not None]
    assert chosen == [0.9, 0.9, 0.9, 0.1, 0.1, 0.9, 0.9, 0.1]
    assert PerPhase[float]().choose(Phase.THOUGHT, 0.3) == 0.3
    assert PerPhase(answer=0.0).choose(Phase.ANSWER, 0.3) == 0.0


def test_a_thought_that_is_wanted_is_opened() -> None:
    written = write(begin([10], start=ThoughtStart.FORCED), [100, CLOSE, 200])
    assert written.token_ids == [OPEN, 100, CLOSE, 200]
    assert begin(THOUGHT_PROMPT, start=ThoughtStart.FORCED).expected == ()
    assert begin([10], start=ThoughtStart.FORCED, budget=0).expected == ()


def test_a_thought_may_begin_without_a_marker() -> None:
    written = write(begin([10], start=ThoughtStart.IMPLICIT, budget=2), words(), limit=5)
    assert written.token_ids == [100, 101, CLOSE, 102, 103]
    opened = write(begin([10], start=ThoughtStart.IMPLICIT), [OPEN, 100, CLOSE, 200])
    assert opened.channel(Channel.REASONING) == [100], "the marker is not missed where the model writes it"


def test_a_thought_may_be_closed_early_from_where_its_message_stands() -> None:
    state = begin(THOUGHT_PROMPT, budget=9, closing=(50, 51, CLOSE))
    state.observe_all([100, 50])
    assert state.closing() == (51, CLOSE)
    state.observe_all(state.closing())
    assert state.phase is Phase.ANSWER


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("budget", {"budget": -1}),
        ("minimum", {"minimum": -1}),
        ("minimum", {"minimum": 3, "budget": 2}),
        ("minimum", {"minimum": 3, "total_budget": 2}),
        ("closing", {"closing": (50,)}),
        ("closing", {"closing": (CLOSE, 50, CLOSE)}),
        ("closing", {"closing": (OPEN, CLOSE)}),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(field: str, settings: dict[str, object]) -> None:
    with pytest.raises(PhaseError) as caught:
        PhaseSettings(IDS, **settings)  # type: ignore[arg-type]
    assert caught.value.field == field


@given(
    draws=st.lists(st.sampled_from([OPEN, CLOSE, BLANK, 50, 51, 100, 101]), max_size=60),
    budget=st.integers(0, 12),
    message=st.sampled_from([(), (CLOSE, 51), (50, 51, CLOSE), (50, 50, CLOSE, 100)]),
    opened=st.booleans(),
)
def test_no_model_thinks_more_than_its_budget(
    draws: list[int], budget: int, message: tuple[int, ...], opened: bool
) -> None:
    state = begin(THOUGHT_PROMPT if opened else [10], budget=budget, closing=message)
    written = write(state, draws)
    thought = {part.position for part in written.routed if part.channel is Channel.REASONING}
    assert sum(written.phases[place] is not None for place in thought) <= budget
    # Whatever was drawn was taken over, in order.
    assert written.drawn == draws[: len(written.drawn)]
