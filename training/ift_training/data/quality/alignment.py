"""Whether an answer does what was asked: no refusal, no echo, no template, and the form that the words ask for."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from ift_training.data.quality.filter import Finding, TextFilter
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.requirements import requirements
from ift_training.data.quality.words import words

_REFUSAL = re.compile(
    r"\b(?:I(?:'m| am) (?:sorry|afraid|unable)|I (?:cannot|can't|can not|could not|couldn't|won't) "
    r"(?:help(?! but)|assist|provide|answer|do|complete|fulfil|access|generate|write|give|see)"
    r"|as an AI\b|as a language model\b"
    r"|I do(?:n't| not) have (?:access|enough|any|the|real|personal)|(?:please )?provide (?:me with )?(?:more|the) "
    r"(?:information|details|context|text)|unable to (?:help|assist|answer|provide|complete))",
    re.IGNORECASE,
)
_REFUSAL_WITHIN = 120
"""Characters of the beginning in which a refusal is one; later it is more often part of what is told."""
_UNWRITTEN = re.compile(
    r"<(?:insert|noinput|output|answer|your answer)\b[^>\n]{0,40}>|\blorem ipsum\b|\bTODO\b"
    r"|\[insert answer[^\]\n]{0,20}\]",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"\[(?:your|insert|name|date|company|title|recipient|address|add|fill|city|topic|number|text)\b[^\]\n]{0,40}\]"
    r"|\{\{[^}\n]{1,40}\}\}|\bXXX+\b",
    re.IGNORECASE,
)
_FORM_ASKED = re.compile(r"\b(?:templates?|placeholders?|forms?|signature)\b", re.IGNORECASE)
_DIALOGUE = re.compile(
    r"\b(?:conversations?|dialogues?|dialogs?|interview\w*|chats?|scripts?|plays?|scenes?|questions?|q&a)\b",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"^(?:#{2,3} ?(?:instruction|input|response|task)\b|(?:user|human|assistant|system|question|instruction)\s*:"
    r"|in this task,? you (?:will be|are) (?:given|asked)\b"
    r"|<\|(?:im_start|im_end|user|assistant|endoftext)\|>|\[/?INST\])",
    re.IGNORECASE | re.MULTILINE,
)
_ECHOED = 0.85
"""Share of the answer's words that stand in the instruction in one piece, from which on it is an echo."""
_ECHO_LEAST = 6
_SAME_LEAST = 3
"""Words of an echo that ends early, and of one that is the instruction itself."""
_NOTHING, _LEAST = 0.0, 0.2
"""Scores of an answer to nothing, and of one that does nothing of what its form must be."""


class Alignment(TextFilter):
    """1 where the answer has all that the instruction's words ask of its form, down to 0.2 where it has nothing of it.

    0 for a refusal, an echo of the instruction, an answer that nobody wrote, or one that goes on to speak for others;
    0.2 for one with places to fill in. English only.
    """

    name: ClassVar[str] = "alignment"
    revision: ClassVar[int] = 3
    good: ClassVar[Literal["high", "low"]] = "high"

    def look(self, pair: Pair) -> Finding:
        """Points at the refusal, the placeholder or the role where there is one."""
        response = pair.response
        if not response.strip():
            return Finding(0.0, "is empty")
        for pattern, what, text, score in (
            (_REFUSAL, "refuses: {}", response[:_REFUSAL_WITHIN], _NOTHING),
            (_UNWRITTEN, "is not written: {}", response, _NOTHING),
            (_ROLE, "speaks for another role: {}", response, _NOTHING),
            (_PLACEHOLDER, "has a place to fill in: {}", response, _LEAST),
        ):
            found = pattern.search(text)
            if found and found.group().strip() not in pair.source and not _is_asked(pattern, pair.instruction):
                return Finding(score, what.format(found.group().strip()), found.span())
        if _is_echo(response, pair.instruction):
            return Finding(0.0, "repeats the instruction")
        asked = requirements(pair.instruction)
        missed = [said for requirement in asked if (said := requirement.missed(response))]
        return Finding(1 - (1 - _LEAST) * len(missed) / max(1, len(asked)), "; ".join(missed))


def _is_asked(pattern: re.Pattern[str], instruction: str) -> bool:
    """Whether an instruction asks for what would else be a fault."""
    asked = {_PLACEHOLDER: _FORM_ASKED, _ROLE: _DIALOGUE}.get(pattern)
    return asked is not None and asked.search(instruction) is not None


def _is_echo(response: str, instruction: str) -> bool:
    """Whether the answer is the instruction, or its beginning and little more."""
    said, asked = words(response), words(instruction)
    if said == asked and len(said) >= _SAME_LEAST:
        return True
    if len(said) < _ECHO_LEAST or len(asked) < _ECHO_LEAST:
        return False
    shared = 0
    text = f" {' '.join(asked)} "
    while shared < len(said) and f" {' '.join(said[: shared + 1])} " in text:
        shared += 1
    return shared >= _ECHOED * len(said) and shared >= 0.5 * len(asked)
