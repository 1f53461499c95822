"""Functions that a model may call, and its calls of them, on their way through the chat template."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

from ift_serve.text.message import Message, PromptError

_DEEPEST = 16
_FIELD = "prompt.conversation"

Function = dict[str, Any]
"""As templates take them: ``{"type": "function", "function": {"name": ...}}``."""
Find = Callable[[Sequence[str]], list[list[tuple[int, int, str]]]]


def read_function(text: str, field: str) -> Function:
    """A function or a call, from its JSON. Raises PromptError."""
    try:
        found = json.loads(text, parse_constant=_refuse)
        is_deep = _depth(found) > _DEEPEST
    except ValueError:
        raise PromptError(field, "is not JSON") from None
    except RecursionError:
        is_deep, found = True, None
    if is_deep:
        raise PromptError(field, f"is nested deeper than {_DEEPEST} levels")
    if not isinstance(found, dict) or found.get("type") != "function" or not isinstance(found.get("function"), dict):
        raise PromptError(field, 'must be an object such as {"type": "function", "function": {"name": "..."}}')
    name = found["function"].get("name")
    if not isinstance(name, str) or not name.strip():
        raise PromptError(field, "has no function.name")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def texts_of(tools: Sequence[Function], messages: Sequence[Message]) -> list[str]:
    """Every text in functions and calls."""
    listed = chain(tools, *(message.tool_calls for message in messages))
    named = chain.from_iterable((message.name, message.tool_call_id) for message in messages)
    return [text for text in chain(chain.from_iterable(map(_texts, listed)), named) if text]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def broken_texts(texts: Sequence[str], find: Find, breaker: str) -> dict[str, str]:
    """Texts in which control tokens are typed, with ``breaker`` inside each of these."""
    unique = list(dict.fromkeys(texts))
    made = {}
    for text, found in zip(unique, find(unique), strict=True):
        if not found:
            continue
        pieces, place = [], 0
        for start, end, _ in found:
            if end - start > 1:
                pieces.append(text[place : start + 1])
                place = start + 1
        made[text] = breaker.join([*pieces, text[place:]])
    return made


def replaced(value: Any, texts: dict[str, str]) -> Any:
    """The value with other texts in it."""
    if not texts:
        return value
    if isinstance(value, str):
        return texts.get(value, value)
    if isinstance(value, dict):
        return {texts.get(key, key): replaced(one, texts) for key, one in value.items()}
    return [replaced(one, texts) for one in value] if isinstance(value, list | tuple) else value


def more_of(message: Message, texts: dict[str, str]) -> dict[str, Any]:
    """What a template gets of a message beside its role and content."""
    told: dict[str, Any] = {}
    if message.tool_calls:
        told["tool_calls"] = replaced(list(message.tool_calls), texts)
    if message.tool_call_id:
        told["tool_call_id"] = replaced(message.tool_call_id, texts)
    if message.name:
        told["name"] = replaced(message.name, texts)
    return told


def check_shown(
    text: str, tools: Sequence[Function], messages: Sequence[Message], without: Callable[[], tuple[str, str]]
) -> None:
    """Raise PromptError for a function or a call that the rendered ``text`` does not show.

    ``without``: the rendering without functions, and the one without calls.
    """
    calls = [(index, call) for index, message in enumerate(messages) for call in message.tool_calls]
    if not tools and not calls:
        return
    problem = "is not shown to the model: its chat template has no place for "
    without_tools, without_calls = without()
    for number, tool in enumerate(tools):
        if text == without_tools or tool["function"]["name"] not in text:
            raise PromptError(f"{_FIELD}.tools[{number}]", f"{problem}functions")
    for index, call in calls:
        if text == without_calls or call["function"]["name"] not in text:
            raise PromptError(f"{_FIELD}.messages[{index}].tool_calls", f"{problem}calls of functions")
