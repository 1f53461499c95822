"""Names that data sets give their fields, and the ones that records have here.

========================  ============================================================
layout                    fields
========================  ============================================================
own                       instruction, context, output, system, checks; or messages
Alpaca                    instruction, input, output
Dolly                     instruction, context, response
questions and answers     question, answer
prompt and completion     both strings, or both lists of messages
chat                      messages of role and content (text, or a list of text parts)
ShareGPT                  conversations of from and value, perhaps with a system
Self-Instruct             instruction, instances of one input and output
========================  ============================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ift_training.data.record_error import Problem, RecordError

_SINGLE = {
    "instruction": "instruction",
    "question": "instruction",
    "prompt": "instruction",
    "context": "context",
    "input": "context",
    "output": "output",
    "response": "output",
    "answer": "output",
    "completion": "output",
    "system": "system",
    "checks": "checks",
}
_CONVERSATION = {
    "messages": "messages",
    "conversations": "messages",
    "conversation": "messages",
    "system": "system",
    "checks": "checks",
}
_OWN_SINGLE = ("checks", "context", "instruction", "output", "system")
_OWN_CONVERSATION = ("checks", "messages", "system")
_IDENTIFIERS = frozenset(
    {"id", "_id", "idx", "index", "uuid", "conversation_id", "message_id", "prompt_id", "question_id"}
)
"""Fields that only number the records."""
_ORIGIN = "lineage"
"""Where `ift-serve data` writes how a record was made; nothing that is trained on."""

_OF_TASKS = ("instances", "name", "is_classification")
"""Fields of a task with instances that are about the task, not about what is asked and answered."""


def named_fields(found: Mapping[str, Any], rename: Mapping[str, str], ignore: Sequence[str]) -> dict[str, Any]:
    """The fields of a record under the names that they have here. Raises RecordError for one that has no meaning."""
    renamed = _renamed(found, rename, ignore)
    if isinstance(renamed.get("instances"), list):
        renamed = _instance(renamed)
    if isinstance(renamed.get("prompt"), list) or isinstance(renamed.get("completion"), list):
        renamed = _joined(renamed)
    kind = _CONVERSATION if any(_CONVERSATION.get(name) == "messages" for name in renamed) else _SINGLE
    own = _OWN_CONVERSATION if kind is _CONVERSATION else _OWN_SINGLE
    fields: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, value in renamed.items():
        target = kind.get(name)
        if target is None and (name in _IDENTIFIERS or name == _ORIGIN or value is None):
            continue
        if target is None:
            raise RecordError(
                name,
                f"is not one of {', '.join(own)}; map it with the source's `rename` or name it in its `ignore`",
                Problem.UNKNOWN_FIELD,
            )
        if target in fields:
            raise RecordError(
                name,
                f"means the same as {origins[target]}; name one of them in the source's `ignore`",
                Problem.FIELD_TWICE,
            )
        fields[target], origins[target] = value, name
    return fields


def _renamed(found: Mapping[str, Any], rename: Mapping[str, str], ignore: Sequence[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for original, value in found.items():
        name = rename.get(original, original)
        if name in fields:
            raise RecordError(name, "is given twice; take one of them out of `rename`", Problem.FIELD_TWICE)
        if name not in ignore:
            fields[name] = value
    return fields


def _instance(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The one instance of a task as fields of the task."""
    found = fields["instances"]
    if len(found) != 1 or not isinstance(found[0], dict):
        raise RecordError(
            "instances", f"is a list of {len(found)}; write a record for each input and output", Problem.WRONG_TYPE
        )
    rest = {name: value for name, value in fields.items() if name not in _OF_TASKS}
    if doubled := sorted(set(rest) & set(found[0])):
        raise RecordError(f"instances[0].{doubled[0]}", "is given for the task too", Problem.FIELD_TWICE)
    return rest | found[0]


def _joined(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Messages of the prompt and then of the completion, as one conversation."""
    for name in ("prompt", "completion"):
        if not isinstance(fields.get(name), list):
            raise RecordError(
                name, "is no list of messages, and the other of prompt and completion is one", Problem.WRONG_TYPE
            )
    if "messages" in fields:
        raise RecordError(
            "messages", "is given beside prompt and completion; name it in the source's `ignore`", Problem.FIELD_TWICE
        )
    rest = {name: value for name, value in fields.items() if name not in ("prompt", "completion")}
    return {**rest, "messages": [*fields["prompt"], *fields["completion"]]}
