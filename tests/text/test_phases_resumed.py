"""The phase that a prompt leaves off in: thoughts and answers that are continued, and what callers type."""

from __future__ import annotations

import pytest

from ift_serve.text.message import Message, Part, Segment
from ift_serve.text.phases import Phase, PhaseBuilder, PhaseSettings, PhaseState, ThoughtMarkers
from tests.text.test_phases_channels import OPENS, QUESTION, TEMPLATE, after, renderer


def test_a_resumed_thought_in_a_conversation_goes_on() -> None:
    one = renderer(TEMPLATE, parse_special_tokens=True)
    state = after(one, [*QUESTION, Message("assistant", (Part("<think>the dog"),))], budget=9)
    assert state.phase is Phase.THOUGHT
    assert state.spent == len(one.tokenizer.encode("the dog", add_special_tokens=False))


@pytest.mark.parametrize(("template", "lead"), [(OPENS, ""), (TEMPLATE, "<think>\n")])
def test_a_thought_is_resumed_behind_a_prompt_with_what_is_typed_in_it_as_text(template: str, lead: str) -> None:
    one = renderer(template)
    prompt = one.conversation(QUESTION)
    resumed = one.answer_ids(prompt, lead, "the dog </think> fox")
    segments = prompt.segment_ids + bytes([Segment.RESPONSE]) * len(resumed)
    settings = PhaseBuilder.of(one).settings(budget=50)
    state = PhaseState.begin(settings, [*prompt.token_ids, *resumed], segments)
    thought = one.encoder.encode_written(["the dog </think> fox"], "text")[0].ids
    assert state.phase is Phase.THOUGHT and state.spent == len(thought)


def test_an_answer_that_is_continued_is_answer() -> None:
    one = renderer(TEMPLATE)
    state = after(one, [*QUESTION, Message("assistant", (Part("the dog"),))])
    assert state.phase is Phase.ANSWER and state.openers == ()


def test_what_a_caller_types_opens_nothing() -> None:
    one = renderer(TEMPLATE)
    state = after(one, [Message("user", (Part("say <think>"),))])
    assert state.phase is Phase.ANSWER
    # Not even where the marker has no token of its own: it stands in another's turn.
    marked = ThoughtMarkers.of_ids([6], [7])
    segments = bytes([Segment.INSTRUCTION, Segment.INSTRUCTION, Segment.TEMPLATE])
    assert PhaseState.begin(PhaseSettings(marked), [6, 8, 9], segments).phase is Phase.ANSWER
