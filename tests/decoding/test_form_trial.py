"""A form that takes too long to read is refused, and the next is read."""

from __future__ import annotations

import gc
import json
import os
import time
from typing import Any, Literal

import pytest

from ift_serve.decoding.form_trial import FormTrials
from ift_serve.decoding.forms import FormatError
from ift_serve.engine.protocol.output import OutputFormat

pytest.importorskip("llguidance", reason="structured output needs llguidance")

GOOD = OutputFormat(kind="json_schema", text='{"type": "object", "properties": {"a": {"type": "integer"}}}')


def _schema(schema: dict[str, Any]) -> OutputFormat:
    return OutputFormat(kind="json_schema", text=json.dumps(schema))


ENDLESS = {
    "a multiple of a large prime": _schema({"type": "integer", "multipleOf": 10_000_019}),
    "all of many patterns": _schema(
        {"allOf": [{"type": "string", "pattern": f"a.{{{count}}}b"} for count in range(60, 110)]}
    ),
}
"""What llguidance reads for minutes, or for ever."""


@pytest.fixture(scope="module")
def trials() -> FormTrials:
    return FormTrials(1)


def _own_processes() -> int:
    """Children of this process that are alive."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return len(file.read().split())


@pytest.mark.parametrize("form", ENDLESS)
def test_a_form_that_takes_for_ever_is_refused_and_the_next_is_read(trials: FormTrials, form: str) -> None:
    with pytest.raises(FormatError, match="make it simpler"):
        trials.check(ENDLESS[form])
    trials.check(GOOD)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("json_schema", "[1]", "a schema is a JSON object"),
        ("json_schema", json.dumps({"const": "a" * 5000}), "constants"),
        ("json_schema", json.dumps({"enum": ["b", "a" * 5000]}), "constants"),
        ("json_schema", '{"a":' * 4000 + "1" + "}" * 4000, "recursion"),
        ("regex", "(", "regex"),
        ("grammar", "start: missing", "missing"),
        ("grammar", "start: " + "(" * 1900 + '"a"' + ")" * 1900, "nested"),
        ("regex", "a" * 513, "bytes"),
    ],
)
def test_what_is_no_form_is_said_as_everywhere(
    trials: FormTrials, kind: Literal["json_schema", "regex", "grammar"], text: str, said: str
) -> None:
    with pytest.raises(FormatError, match=f"(?i){said}"):
        trials.check(OutputFormat(kind=kind, text=text))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("json_schema", json.dumps({"enum": [f"value {n} of many" for n in range(2000)]})),
        ("json_schema", json.dumps({"type": "string", "maxLength": 10**6})),
        ("json_schema", json.dumps({"type": "number", "multipleOf": 0.01})),
        ("json_schema", json.dumps({"const": "a" * 4096, "description": "d" * 20_000})),
        ("regex", "(.*a){60}"),
        ("grammar", 'start: a\na: a a | "x"\n'),
    ],
)
def test_large_and_ambiguous_forms_that_can_be_read_are_used(
    trials: FormTrials, kind: Literal["json_schema", "regex", "grammar"], text: str
) -> None:
    trials.check(OutputFormat(kind=kind, text=text))


def test_a_form_that_was_read_lately_needs_no_process_and_one_that_is_gone_is_replaced() -> None:
    trials = FormTrials(1)
    trials.check(GOOD)
    (process,) = trials._running
    process.kill()
    process.wait()
    trials.check(GOOD)
    trials.check(OutputFormat(kind="regex", text="[0-9]"))
    assert trials._running != {process}


def test_processes_end_with_what_made_them() -> None:
    before = _own_processes()
    trials = FormTrials(1)
    trials.check(GOOD)
    assert _own_processes() == before + 1
    del trials
    gc.collect()
    deadline = time.monotonic() + 30
    while _own_processes() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _own_processes() == before
