"""All checks by name, read from plain values, and the one place where responses are judged."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from ift_serve.checks.answers import Exact, LastNumber, Steps, YesNo
from ift_serve.checks.check import Check
from ift_serve.checks.content import Content
from ift_serve.checks.forms import Bullets, Commas, Json, JsonItems
from ift_serve.checks.instructions import BenchmarkInstruction
from ift_serve.checks.listing import ListItems, NamesOne
from ift_serve.checks.patterns import Pattern
from ift_serve.checks.phrases import Avoid, Begin, End, Include, MaxWords, MinSentences, MinWords, Upper
from ift_serve.checks.verdict import PASSED, Verdict

_TYPES: tuple[type[Check], ...] = (
    Begin, End, Include, Avoid, Bullets, Json, Commas, Upper, MaxWords, MinWords, MinSentences, Exact, LastNumber,
    Steps, YesNo, JsonItems, ListItems, NamesOne, Pattern, Content, BenchmarkInstruction,
)  # fmt: skip
CHECKS: dict[str, type[Check]] = {kind.model_fields["type"].default: kind for kind in _TYPES}
"""The class of each type of check."""


def fields_of(name: str) -> tuple[str, ...]:
    """The fields that a check of the type must have beside ``type``. Raises KeyError."""
    return tuple(field for field, found in CHECKS[name].model_fields.items() if found.is_required())


def parse_check(found: object, where: str = "check") -> Check:
    """The check of an object such as ``{"type": "end", "phrase": "Over and out"}``.

    Raises ValueError, whose text begins with the field: ``where.phrase: give ...``.
    """
    if not isinstance(found, dict):
        raise ValueError(f'{where}: write an object like {{"type": "upper"}}')
    name = found.get("type")
    if not isinstance(name, str) or name not in CHECKS:
        raise ValueError(f"{where}.type: {name!r:.80} is not one of {', '.join(CHECKS)}")
    try:
        return CHECKS[name].model_validate(found)
    except ValidationError as error:
        raise ValueError(_explained(error, name, where)) from None


def parse_checks(found: object) -> tuple[Check, ...]:
    """The checks of a list of such objects. Raises ValueError, whose text begins with ``checks[0].phrase: ``."""
    if not isinstance(found, list):
        raise ValueError('checks: write a list like [{"type": "end", "phrase": "Over and out"}]')
    return tuple(parse_check(check, f"checks[{index}]") for index, check in enumerate(found))


def judge(check: Check, response: str, instruction: str = "") -> Verdict:
    """Whether a response passes a check. instruction: the prompt, for the checks that look at it."""
    return check.verdict(response, instruction)


def judge_all(checks: Iterable[Check], response: str, instruction: str = "") -> Verdict:
    """The verdict of the first check that the response fails; passed where there is none."""
    for check in checks:
        verdict = check.verdict(response, instruction)
        if not verdict:
            return verdict
    return PASSED


def _explained(error: ValidationError, name: str, where: str) -> str:
    """The first mistake as a field and what to do about it."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(map(str, (where, *found["loc"])))
    match found["type"]:
        case "extra_forbidden":
            return f"{field}: is not part of a check of type {name!r}"
        case "int_type" | "greater_than_equal":
            return f"{field}: give a number above 0"
        case "string_type":
            return f"{field}: give a string"
        case "value_error":
            return f"{field}: {found['msg'].removeprefix('Value error, ')}"
        case "missing":
            # What a missing field should be is what pydantic says of a wrong one.
            return f"{field}: give {_wanted(CHECKS[name], str(found['loc'][-1]))}"
    return f"{field}: {found['msg']}"


def _wanted(kind: type[Check], field: str) -> str:
    info = kind.model_fields.get(field)
    if info is not None and info.annotation is int:
        return "a number above 0"
    return "a string" if info is not None and info.annotation is str else "a value"
