"""Which text is thought and which is answer. Numbers in names are those of known failures of other servers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from ift_serve.text import StopMatcher
from ift_serve.text.message import Message, Part
from ift_serve.text.phases import (
    Channel,
    ChannelPiece,
    ChannelRouter,
    ChannelTally,
    Phase,
    PhaseBuilder,
    PhaseSettings,
    PhaseState,
    ThoughtStart,
)
from ift_serve.text.prompt import PromptRenderer
from ift_serve.text.token_texts import TokenDecoder
from tests.support.phases import (
    CLOSE,
    IDS,
    OPEN,
    TYPED,
    begin,
    builder,
    merging,
    texts,
    unary,
    write,
)
from tests.support.tiny_tokenizers import byte_level, tokenizer_of

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% if not loop.last or add_generation_prompt %}"
    "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENS = TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
CLOSES = TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n\n</think>\n\n{% endif %}")
QUESTION = [Message("user", (Part("the dog?"),))]


def renderer(template: str, **options: Any) -> PromptRenderer:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level(), bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    return PromptRenderer(tokenizer, **options)


def after(one: PromptRenderer, messages: list[Message], **options: Any) -> PhaseState:
    """The state behind a rendered conversation."""
    prompt = one.conversation(messages, continue_final=messages[-1].role == "assistant")
    return PhaseState.begin(PhaseBuilder.of(one).settings(**options), prompt.token_ids, prompt.segment_ids)


def typed(text: str = "", **options: Any) -> PhaseState:
    """The state of a tokenizer whose markers are typed text."""
    prompt = merging().encode(text).ids if text else []
    return PhaseState.begin(builder(merging()).settings(pair=TYPED, **options), prompt)


def spelled(text: str) -> list[int]:
    """Ids of a text, a character each."""
    return [i for character in text for i in merging().encode(character).ids]


def shown(state: PhaseState, text: str) -> tuple[str, str]:
    """Thought and answer of a text of the merging tokenizer."""
    channels = unary(state, merging(), merging().encode(text).ids)
    return channels[Channel.REASONING], channels[Channel.ANSWER]


def test_case_13_a_tag_cut_at_any_character_gives_the_same_text() -> None:
    text = "<reason>one</reason>\n\ntwo"
    state = typed()
    whole = unary(state, merging(), merging().encode(text).ids)
    assert whole == {Channel.REASONING: "one", Channel.ANSWER: "\n\ntwo"}
    for place in range(len(text)):
        ids = spelled(text[:place]) + merging().encode(text[place:]).ids
        router = ChannelRouter(state.copy(), TokenDecoder(merging()))
        pieces: list[ChannelPiece] = []
        for token_id in ids:
            pieces += router.push([token_id])
        assert texts([*pieces, *router.flush()]) == whole, text[:place]


def test_case_14_a_tag_that_melts_with_punctuation_is_found_and_the_punctuation_kept() -> None:
    ids = merging().encode("<reason>well, ok.</reason>\n\n42").ids
    melted = [merging().decode([i]) for i in ids]
    assert any(piece.startswith(".<") for piece in melted) and any(">\n\n" in piece for piece in melted), melted
    state = typed()
    assert unary(state, merging(), ids) == {Channel.REASONING: "well, ok.", Channel.ANSWER: "\n\n42"}
    written = write(state, ids)
    counted = [part.position for part in written.routed if part.counts]
    assert counted == list(range(len(ids))), "every token counts once, whatever is beside its marker"


def test_case_14_a_tag_within_one_token_is_found() -> None:
    markers = builder(merging()).settings(pair=TYPED).markers
    whole = next(i for i in range(merging().get_vocab_size()) if "</reason>" in merging().decode([i]))
    assert whole in markers.pieces
    state = typed("<reason>")
    text = merging().decode([whole])
    assert unary(state, merging(), [*merging().encode("so").ids, whole, *merging().encode("42").ids]) == {
        Channel.REASONING: "so" + text[: text.index("</")],
        Channel.ANSWER: text[text.index(">") + 1 :] + "42",
    }


def test_case_15_a_literal_open_tag_in_an_answer_stays_text() -> None:
    assert shown(typed(), "<reason>a</reason>The tag <reason> opens, </reason> closes.") == (
        "a",
        "The tag <reason> opens, </reason> closes.",
    )


def test_case_15_typed_text_is_never_a_control_token() -> None:
    one = renderer(OPENS)
    state = after(one, QUESTION)
    literal = one.encoder.encode_written(["<think>"], "text")[0].ids
    close = one.tokenizer.convert_tokens_to_ids("</think>")
    dog = one.tokenizer.encode("the dog", add_special_tokens=False)
    channels = unary(state, one.tokenizer.backend_tokenizer, [*dog, *literal, close, *literal, *dog])
    assert channels == {Channel.REASONING: "the dog<think>", Channel.ANSWER: "<think>the dog"}


def test_case_15_a_control_token_in_an_answer_may_be_text_by_choice() -> None:
    state = PhaseState.begin(PhaseSettings(IDS, markers_anywhere=False), [OPEN])
    written = write(state, [100, CLOSE, 200, OPEN, 201])
    assert written.channel(Channel.ANSWER) == [200, OPEN, 201]


@pytest.mark.parametrize("text", ["<", "</", "</reaso", "a <reason"])
def test_case_16_the_beginning_of_a_marker_at_the_end_is_text(text: str) -> None:
    assert shown(typed("<reason>"), text) == (text, "")
    assert shown(typed(), text) == ("", text)


def _operations(work: Callable[[], object]) -> int:
    """Lines of the machine that were run."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        if "text/phases" not in frame.f_code.co_filename.replace("\\", "/"):
            return None
        lines += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("word", ["<", "</reaso", "<<reason", "it is so. "])
@pytest.mark.parametrize("prompt", ["", "<reason>"])
def test_case_17_a_text_fifty_times_as_long_costs_at_most_seventy_five_times_as_much(word: str, prompt: str) -> None:
    ids = merging().encode(word * 8).ids
    costs = []
    for repeats in (1, 50):
        router = ChannelRouter(typed(prompt, budget=10**6), TokenDecoder(merging()))
        costs.append(_operations(lambda router=router, repeats=repeats: router.push(ids * repeats)))  # type: ignore[misc]
        assert len(router.state._scanner.held) <= len(TYPED.closing)
    assert 10 * costs[0] < costs[1] < 75 * costs[0]


def test_case_17_a_long_prompt_costs_as_much_as_it_has_markers() -> None:
    ids = merging().encode("it is so. ").ids
    costs = [_operations(lambda n=n: begin(ids * n)) for n in (10, 500)]  # type: ignore[misc]
    assert costs[1] < 75 * costs[0]


def test_case_18_a_thought_that_the_template_opens_is_routed_and_counted() -> None:
    one = renderer(OPENS)
    state = after(one, QUESTION, budget=50)
    assert state.phase is Phase.THOUGHT and state.spent == 0
    close = one.tokenizer.convert_tokens_to_ids("</think>")
    dog = one.tokenizer.encode("the dog", add_special_tokens=False)
    written = write(state.copy(), [*dog, close, *dog, *dog])
    counts = written.state.reasoning_tokens, written.state.answer_tokens, written.state.marker_tokens
    assert counts == (len(dog), 2 * len(dog), 1)
    channels = unary(state, one.tokenizer.backend_tokenizer, [*dog, close, *dog])
    assert channels == {Channel.REASONING: "the dog", Channel.ANSWER: "the dog"}


def test_case_18_a_doubled_open_marker_is_no_text() -> None:
    written = write(begin([OPEN]), [OPEN, 100, OPEN, CLOSE, 200])
    assert written.channel(Channel.REASONING) == [100, OPEN], "in the middle of a thought it is text"
    assert written.channel(Channel.MARKER) == [OPEN, CLOSE]


@pytest.mark.parametrize("start", list(ThoughtStart))
def test_case_19_a_prefill_that_ends_with_a_close_tag_is_followed_by_the_answer(start: ThoughtStart) -> None:
    one = renderer(CLOSES)
    state = after(one, QUESTION, start=start)
    assert state.phase is Phase.ANSWER and state.expected == ()
    assert state.is_constrained and state.openers == ()
    dog = one.tokenizer.encode("the dog", add_special_tokens=False)
    assert unary(state, one.tokenizer.backend_tokenizer, dog) == {Channel.REASONING: "", Channel.ANSWER: "the dog"}


def test_case_19_raw_prompts_too() -> None:
    assert begin([10, 11, OPEN, CLOSE], start=ThoughtStart.IMPLICIT).phase is Phase.ANSWER
    assert begin([10, 11, CLOSE], start=ThoughtStart.IMPLICIT).phase is Phase.ANSWER


def test_case_20_a_close_tag_in_history_does_not_mean_that_the_thought_has_ended() -> None:
    one = renderer(TEMPLATE, parse_special_tokens=True)
    history = [*QUESTION, Message("assistant", (Part("<think>so</think>yes"),)), *QUESTION]
    state = after(one, history)
    opener = one.tokenizer.convert_tokens_to_ids("<think>")
    assert state.phase is Phase.ANSWER and not state.had_thought
    assert state.openers == (opener,), "structured output leaves room for a thought"
    state.observe(opener)
    assert not (state.is_constrained or state.openers)


def test_case_20_the_same_in_a_raw_prompt() -> None:
    state = begin([10, OPEN, 20, CLOSE, 21, 11])
    assert state.openers == (OPEN,) and not state.had_thought
    assert begin([10, OPEN, 20, CLOSE, 21, 11], start=ThoughtStart.IMPLICIT).phase is Phase.THOUGHT


def test_case_21_candidates_are_independent() -> None:
    start = begin([OPEN], budget=9)
    first, second = start.copy(), start.copy()
    first.observe_all([100, CLOSE, 200])
    assert second == start
    second.observe_all([100, 101])
    assert (first.phase, second.phase) == (Phase.ANSWER, Phase.THOUGHT)
    assert (first.answer_tokens, second.answer_tokens) == (1, 0)


def test_case_22_an_answer_cut_within_the_thought_has_reasoning_only() -> None:
    state = typed("<reason>")
    router = ChannelRouter(state, TokenDecoder(merging()))
    pieces = [*router.push(merging().encode("it is </rea").ids), *router.flush(), *router.flush()]
    assert texts(pieces) == {Channel.REASONING: "it is </rea", Channel.ANSWER: ""}
    assert state.phase is Phase.THOUGHT and state.answer_tokens == 0


LM_EVAL_STOPS = ["Question:", "</s>", "<|im_end|>", "Q:"]
"""What lm-eval's gsm8k stops at."""


def _stopped(state: PhaseState, text: str, stops: list[str], cut: int) -> tuple[str, str, str | None]:
    """Thought, answer and the stop string found, as a server finds it: in the answer only."""
    router, matcher = ChannelRouter(state, TokenDecoder(merging())), StopMatcher(stops)
    ids = merging().encode(text).ids
    thought = answer = ""
    for place in range(0, len(ids), cut):
        for piece in router.push(ids[place : place + cut]):
            if piece.channel is Channel.ANSWER:
                new, found = matcher.push(piece.text)
                answer += new
                if found is not None:
                    return thought, answer, found
            elif piece.channel is Channel.REASONING:
                thought += piece.text
    return thought, answer + matcher.flush(), None


@pytest.mark.parametrize("cut", [1, 3, 100])
@pytest.mark.parametrize("stop", LM_EVAL_STOPS)
def test_case_23_stop_strings_are_dormant_within_a_thought(stop: str, cut: int) -> None:
    text = f"one {stop} two</reason>\n42 {stop} rest"
    assert _stopped(typed("<reason>"), text, LM_EVAL_STOPS, cut) == (f"one {stop} two", "\n42 ", stop)
    assert typed("<reason>").stops_are_dormant and not typed().stops_are_dormant


@pytest.mark.parametrize("cut", [1, 100])
def test_case_24_only_what_follows_the_close_tag_is_searched_for_stops(cut: int) -> None:
    assert _stopped(typed("<reason>"), "a\n\nb\n</reason>c\n\nd", ["\n\n"], cut) == ("a\n\nb\n", "c", "\n\n")
    # No stop string reaches over a marker.
    assert _stopped(typed("<reason>"), "ST</reason>OP", ["STOP"], cut) == ("ST", "OP", None)


def test_case_25_what_looks_like_a_call_within_a_thought_is_thought() -> None:
    thought, answer = shown(typed("<reason>"), 'I could <tool_call>{"name": "f"}</tool_call></reason>No.')
    assert thought.endswith("</tool_call>") and answer == "No."


def test_case_26_structured_output_begins_with_the_first_answer_token() -> None:
    state, governed = begin([OPEN]), []
    for token in [100, 101, CLOSE, 200, 201]:
        governed.append(state.is_constrained)
        state.observe(token)
    assert governed == [False, False, False, True, True]


def test_case_26_even_where_the_thought_ends_within_a_draft() -> None:
    state = begin([OPEN])
    ahead, governed = state.copy(), []
    for token in [100, CLOSE, 200]:
        ahead.observe(token)
        governed.append(ahead.is_constrained)
    assert governed == [False, True, True] and not state.is_constrained


def test_case_26_what_is_forced_behind_the_marker_is_not_governed() -> None:
    state = begin([OPEN], budget=1, closing=(CLOSE, 52))
    state.observe(100)
    state.observe(CLOSE)
    assert state.phase is Phase.ANSWER and not state.is_constrained
    state.observe(52)
    assert state.is_constrained and state.openers == ()


def test_case_29_log_probabilities_are_kept_by_channel() -> None:
    state, tally = typed("<reason>", budget=100), ChannelTally()
    ids = merging().encode("ok.</reason>\n\n42").ids
    for place, token_id in enumerate(ids):
        tally.observe(-1.0 - place, state.observe(token_id).routed)
    tally.take(state.finish())
    sums = [tally[channel] for channel in Channel]
    assert sum(one.tokens for one in sums) == len(ids)
    assert sum(one.total for one in sums) == pytest.approx(sum(-1.0 - place for place in range(len(ids))))
    counts = state.reasoning_tokens, state.answer_tokens, state.marker_tokens
    assert tuple(one.tokens for one in sums) == counts
    assert tally[Channel.REASONING].mean == pytest.approx(-1.0 - (state.reasoning_tokens - 1) / 2)


def test_case_29_forced_tokens_have_no_log_probability() -> None:
    state, tally = begin([OPEN], budget=2, closing=(50, CLOSE)), ChannelTally()
    for token, log_prob in [(100, -1.0), (101, -3.0), (50, None), (CLOSE, None), (200, -5.0)]:
        tally.observe(log_prob, state.observe(token).routed)
    assert tally[Channel.REASONING].mean == -2.0 and tally[Channel.ANSWER].total == -5.0
    assert tally[Channel.MARKER].mean is None


def test_case_29_pieces_come_in_the_order_of_their_tokens() -> None:
    router = ChannelRouter(typed("<reason>"), TokenDecoder(merging()))
    ids = merging().encode("日 </reas </reason>日</rea").ids
    pieces = [*router.push(ids), *router.flush()]
    assert list(dict.fromkeys(piece.position for piece in pieces)) == list(range(len(ids)))
    assert b"".join(piece.raw for piece in pieces) == "日 </reas </reason>日</rea".encode()


def test_an_incomplete_character_does_not_go_on_in_the_other_channel() -> None:
    tokenizer = tokenizer_of("byte-level")
    sun = tokenizer.encode("日").ids
    assert len(sun) > 1
    close = tokenizer.token_to_id("</think>")
    state = PhaseState.begin(builder(tokenizer).settings(start=ThoughtStart.IMPLICIT))
    assert unary(state, tokenizer, [sun[0], close, *sun[1:], *tokenizer.encode("a").ids]) == {
        Channel.REASONING: "\ufffd",
        Channel.ANSWER: "\ufffd" * len(sun[1:]) + "a",
    }


def test_special_tokens_add_no_text_and_bear_their_name() -> None:
    tokenizer = tokenizer_of("byte-level")
    router = ChannelRouter(PhaseState.begin(builder(tokenizer).settings()), TokenDecoder(tokenizer))
    special = tokenizer.token_to_id("<|im_end|>")
    pieces = router.push([*tokenizer.encode("a").ids, special, *tokenizer.encode("b").ids])
    assert [(p.text, p.raw) for p in pieces] == [("a", b"a"), ("", b"<|im_end|>"), ("b", b"b")]
