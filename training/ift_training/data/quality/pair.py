"""An instruction with its answer, as filters look at it."""

from __future__ import annotations

from dataclasses import dataclass

from ift_serve.checks import Check


@dataclass(frozen=True, slots=True)
class Pair:
    """What is asked and answered. id: of the record. earlier: what was said before, oldest first.

    checks: what any answer can be judged by. references: answers that are known to be good.
    """

    id: str
    instruction: str
    response: str
    context: str = ""
    earlier: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    references: tuple[str, ...] = ()

    @property
    def asked(self) -> str:
        """Instruction and context as one text."""
        return f"{self.instruction}\n\n{self.context}" if self.context else self.instruction

    @property
    def source(self) -> str:
        """All that the answer can be held against: what was said before, the instruction, the context."""
        return "\n\n".join((*self.earlier, self.asked))
