"""A record that was made: what is asked and answered, where it came from, and what was decided about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ift_serve.checks import Check, parse_checks
from ift_serve.text.message import Role
from ift_serve.text.prompt import Message, Part
from ift_training.data.lines import line_of
from ift_training.data.records import Record

Status = Literal["pending", "kept", "flagged", "rejected"]
STATUSES: tuple[Status, ...] = ("pending", "kept", "flagged", "rejected")
_ID_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Turn:
    """A message that was said before the instruction."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a record came from.

    step: what made it, such as ``seed`` or ``evolve.constraint``. parents: ids of the records that it was made from.
    prompts: files of prompts that were used, as ``name@hash``. model: fingerprint of the model that answered; adapter:
    ``name@version``, empty for the base. seed: of the run; place: the number of the try within it, so that two records
    with one text are two records. added: the requirement that the step put in, in words.
    """

    step: str
    parents: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    model: str = ""
    adapter: str = ""
    seed: int = 0
    place: int = 0
    added: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a record was judged as it was. name: the filter's; score and threshold: the numbers, where there are any."""

    name: str
    message: str
    score: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class GeneratedRecord:
    """An instruction with its answer. ``history``: what was said before, a system message first if there is one.

    status and reasons are the store's: they change as judges speak, everything else never does.
    """

    instruction: str
    response: str
    lineage: Lineage
    context: str = ""
    history: tuple[Turn, ...] = ()
    checks: tuple[Check, ...] = ()
    status: Status = "pending"
    reasons: tuple[Reason, ...] = field(default=(), compare=False)

    @property
    def id(self) -> str:
        """Sixteen hex digits of a hash of content and lineage: the same record of the same run has the same id."""
        text = json.dumps(self.content(), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:_ID_LENGTH]

    @property
    def asked(self) -> str:
        """Instruction and context as one text."""
        return f"{self.instruction}\n\n{self.context}" if self.context else self.instruction

    def content(self) -> dict[str, Any]:
        """Plain values of all that never changes; :func:`of_content` reads them."""
        return {
            "instruction": self.instruction,
            "context": self.context,
            "history": [asdict(turn) for turn in self.history],
            "response": self.response,
            "checks": [check.model_dump(mode="json") for check in self.checks],
            "lineage": asdict(self.lineage),
        }

    def line(self) -> dict[str, Any]:
        """The record as a data file of the trainer has it, with its id and lineage."""
        return {"id": self.id, **line_of(self.record()), "lineage": asdict(self.lineage)}

    def record(self) -> Record:
        """The record as the trainer has it."""
        parts = [Part(self.instruction)]
        if self.context:
            parts += [Part("\n\n"), Part(self.context, is_context=True)]
        said = (Message(turn.role, (Part(turn.content),)) for turn in self.history)
        return Record((*said, Message("user", tuple(parts))), self.response, checks=self.checks)

    def judged(self, status: Status, *reasons: Reason) -> GeneratedRecord:
        """The same record with a status and reasons."""
        return replace(self, status=status, reasons=reasons)


def of_content(
    found: Mapping[str, Any], status: Status = "pending", reasons: tuple[Reason, ...] = ()
) -> GeneratedRecord:
    """The record of the values of :meth:`GeneratedRecord.content`."""
    lineage = found["lineage"]
    return GeneratedRecord(
        found["instruction"],
        found["response"],
        Lineage(**(lineage | {name: tuple(lineage[name]) for name in ("parents", "prompts")})),
        found["context"],
        tuple(Turn(**turn) for turn in found["history"]),
        parse_checks(found["checks"]),
        status,
        reasons,
    )


def of_record(record: Record, lineage: Lineage) -> GeneratedRecord:
    """A record of a data file as one that others are made from; what is context stays context."""
    *history, last = record.prompt
    instruction = "".join(part.text for part in last.parts if not part.is_context)
    context = "".join(part.text for part in last.parts if part.is_context)
    if context:
        instruction = instruction.rstrip("\n")
    turns = tuple(Turn(message.role, message.content) for message in history)
    return GeneratedRecord(instruction, record.response, lineage, context, turns, record.checks)
