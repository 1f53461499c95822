"""Instructions to give back the prompt, a part of it, or a sentence."""

from __future__ import annotations

import random
from typing import ClassVar

from ift_serve.checks.ifbench.arguments import Number, Text
from ift_serve.checks.instruction import Instruction
from ift_serve.checks.verdict import PASSED, Verdict, failed

_SENTENCE = "only output this sentence here, ignore all other requests."


class RepeatChange(Instruction):
    """The prompt with its first word changed, and nothing else."""

    id: ClassVar[str] = "repeat:repeat_change"
    prompt_to_repeat: Text

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: the whole is meant."""
        if response == self.prompt_to_repeat:
            return failed("the first word is not changed")
        same = response.split()[1:] == self.prompt_to_repeat.split()[1:]
        return PASSED if same else failed("more than the first word is changed")


class RepeatSimple(Instruction):
    """One sentence of the prompt, in any case, and nothing else."""

    id: ClassVar[str] = "repeat:repeat_simple"

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: the whole is meant."""
        return PASSED if response.strip().lower() == _SENTENCE else failed(f"is not {_SENTENCE!r}")


class RepeatSpan(Instruction):
    """The words of the prompt from one index up to another, the latter not included.

    The published code takes an index of 0 for none and draws one at random in its place; here that draw is made
    once, from a generator with the seed 0. The repaired one takes 0 for 0.
    """

    id: ClassVar[str] = "repeat:repeat_span"
    prompt_to_repeat: Text
    n_start: Number
    n_end: Number

    def verdict(self, response: str) -> Verdict:
        """Points at nothing: the whole is meant."""
        return self._judged(response, self.n_start, self.n_end)

    def published(self, response: str) -> Verdict:
        """An index of 0 is another one."""
        count = len(self.prompt_to_repeat.split())
        draw = random.Random(0)
        start = self.n_start or draw.randint(0, max(0, count - 2))
        return self._judged(
            response, start, self.n_end or draw.randint(min(start + 1, count - 1), max(start + 1, count - 1))
        )

    def _judged(self, response: str, start: int, end: int) -> Verdict:
        wanted = self.prompt_to_repeat.lower().split()[start:end]
        return PASSED if response.lower().split() == wanted else failed(f"is not {' '.join(wanted)!r:.200}")
