"""Lines of data files: what is read from them, and how the rest is refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.text.prompt import Part
from ift_training.data.records import RecordError, parse_line, parse_record

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(lambda t: bool(t.strip()))


@settings(max_examples=100, deadline=None)
@given(instruction=TEXT, context=TEXT | st.just(""), output=TEXT, system=TEXT | st.just(""))
def test_a_single_record_round_trips(instruction: str, context: str, output: str, system: str) -> None:
    record = parse_line(
        json.dumps({"instruction": instruction, "context": context, "output": output, "system": system})
    )
    *before, request = record.prompt
    assert [m.content for m in before] == ([system] if system else [])
    assert request.parts[0] == Part(instruction)
    assert [p.text for p in request.parts if p.is_context] == ([context] if context else [])
    assert record.response == output


@settings(max_examples=100, deadline=None)
@given(turns=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4))
def test_a_conversation_round_trips(turns: list[tuple[str, str]]) -> None:
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    record = parse_record({"messages": messages})
    assert record.response == turns[-1][1]
    assert [m.content for m in record.prompt] == [m["content"] for m in messages[:-1]]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["instruction", "output", "context", "messages", "role", "content", "text", "checks"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(found=JSON)
def test_anything_is_a_record_or_a_record_error(found: Any) -> None:
    with contextlib.suppress(RecordError):
        record = parse_line(json.dumps(found))
        assert record.response.strip() and record.prompt[-1].role == "user"


@settings(max_examples=100, deadline=None)
@given(line=st.binary(max_size=40))
def test_any_bytes_are_a_record_or_a_record_error(line: bytes) -> None:
    with pytest.raises(RecordError):
        parse_line(line)


GOOD = {"instruction": "Say yes.", "output": "yes"}
USER, ANSWER = {"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}


@pytest.mark.parametrize(
    ("found", "field", "said"),
    [
        ({"instruction": "x"}, "output", "missing"),
        ({"output": "x"}, "instruction", "missing"),
        ({**GOOD, "output": "  "}, "output", "empty"),
        ({**GOOD, "output": 3}, "output", "number"),
        ({**GOOD, "context": ["a"]}, "context", "list"),
        ({**GOOD, "category": "qa"}, "category", "ignore"),
        ({**GOOD, "output": "\ud800"}, "output", "Unicode"),
        ({"messages": []}, "messages", "empty"),
        ({"messages": [USER]}, "messages[0].role", "end with the answer"),
        ({"messages": [ANSWER]}, "messages[0].role", "first"),
        ({"messages": [USER, USER, ANSWER]}, "messages[1].role", "twice"),
        ({"messages": [USER, {"role": "system", "content": "s"}, ANSWER]}, "messages[1].role", "system"),
        ({"messages": [{"role": "system", "content": "s"}, ANSWER]}, "messages[1].role", "user message"),
        ({"messages": [{"role": "bot", "content": "s"}, ANSWER]}, "messages[0].role", "choose one of"),
        ({"messages": [{**USER, "name": "me"}, ANSWER]}, "messages[0].name", "role and content"),
        ({"messages": [{"role": "user", "content": [{"text": ""}]}, ANSWER]}, "messages[0].content[0].text", "empty"),
        ({"messages": [USER, ANSWER], "output": "x"}, "output", "not one of"),
        ({**GOOD, "checks": [{"type": "rhyme"}]}, "checks[0].type", "not one of"),
        ({**GOOD, "checks": [{"type": "end"}]}, "checks[0].phrase", "string"),
        ({**GOOD, "checks": [{"type": "max_words", "limit": 0}]}, "checks[0].limit", "above 0"),
    ],
)
def test_a_wrong_record_names_its_field(found: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse_record(found)
    assert caught.value.field == field
    assert said in caught.value.message


def test_fields_are_renamed_and_ignored() -> None:
    found = {"question": "Say yes.", "response": "yes", "id": 7}
    record = parse_record(found, rename={"question": "instruction", "response": "output"}, ignore=["id"])
    assert record.prompt[0].content == "Say yes." and record.response == "yes"
    with pytest.raises(RecordError, match="twice"):
        parse_record({**GOOD, "answer": "no"}, rename={"answer": "output"})


def test_records_that_ask_the_same_have_one_key() -> None:
    first, second = (parse_record({**GOOD, "output": output}) for output in ("yes", "no"))
    assert first.key == second.key != parse_record({**GOOD, "instruction": "Say no."}).key
