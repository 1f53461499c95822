"""End-of-answer tokens, as far as tokenizer and chat template know."""

from __future__ import annotations

from ift_serve.text.message import Message, Part, PromptError, Segment
from ift_serve.text.prompt import PromptRenderer

_PROBE = "\ue0b0answer\ue0b0"
_TURNS = (Message("user", (Part("question"),)), Message("assistant", (Part(_PROBE),)), Message("user", (Part("b"),)))


def template_end(renderer: PromptRenderer) -> int | None:
    """The control token that the template writes behind an answer; None where there is none.

    A token that opens the user's message ends no answer, even where it is what follows one.
    """
    try:
        opening = renderer.conversation(_TURNS[:1])
        text = renderer.conversation(_TURNS).text or ""
    except PromptError:
        return None
    behind = text.partition(_PROBE)[2].lstrip()
    markers = renderer.encoder.markers
    (found,) = markers.find([behind])
    if not found or found[0][0] != 0:
        return None
    token = next(index for index, content in markers.ids.items() if content == found[0][2])
    opened = opening.token_ids[: max(0, opening.segment_ids.find(Segment.INSTRUCTION))]
    return None if token in opened else token


def answer_ends(renderer: PromptRenderer) -> list[int]:
    """The template's end of an answer and the tokenizer's end of text."""
    ends = [template_end(renderer), renderer.tokenizer.eos_token_id]
    return list(dict.fromkeys(int(end) for end in ends if end is not None))
