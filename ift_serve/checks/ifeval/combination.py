"""Instructions that join answers: two of them, or the prompt before one."""

from __future__ import annotations

from typing import ClassVar

from ift_serve.checks.ifeval.lengths import divided
from ift_serve.checks.instruction import Instruction, Text
from ift_serve.checks.verdict import PASSED, Verdict, failed, passed

_STARS = "******"


class TwoResponses(Instruction):
    """Two different answers, divided by six stars."""

    id: ClassVar[str] = "combination:two_responses"

    def verdict(self, response: str) -> Verdict:
        """Points at a blank answer, or at the second where it is the first again."""
        parts = divided(response, _STARS)
        found = []
        for index, (start, end) in enumerate(parts):
            if response[start:end].strip():
                found.append((start, end))
            elif 0 < index < len(parts) - 1:
                return failed("an answer between two dividers is blank", (start, end))
        if len(found) != 2:
            return failed(f"{len(found)} answers instead of 2", found[2] if len(found) > 2 else None)
        first, second = (response[slice(*span)].strip() for span in found)
        return failed("both answers are the same", found[1]) if first == second else PASSED


class RepeatPrompt(Instruction):
    """The response begins with the prompt, in any case."""

    id: ClassVar[str] = "combination:repeat_prompt"
    prompt_to_repeat: Text

    def verdict(self, response: str) -> Verdict:
        """Points at what follows the last character that is right."""
        start = len(response) - len(response.lstrip())
        wanted, given = self.prompt_to_repeat.strip().lower(), response.strip().lower()
        if given.startswith(wanted):
            return passed((start, min(start + len(wanted), len(response))))
        differs = (i for i, (a, b) in enumerate(zip(given, wanted, strict=False)) if a != b)
        first = min(start + next(differs, min(len(given), len(wanted))), len(response))
        end = min(start + len(wanted), len(response))
        return failed("does not begin with the prompt", (first, max(first, end)))
