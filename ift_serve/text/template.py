"""Chat templates: compiled once, rendered within a bound of work, with content in the shape they want."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.utils import Namespace

from ift_serve.text.budget import BudgetedEnvironment, RenderBudget
from ift_serve.text.message import PromptError, Role

DEFAULT_TEMPLATE = (
    "{{ bos }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ ' ' + message['content'] }}"
    "{{ eos }}"
    "{% else %}"
    "{% if loop.first or messages[loop.index0 - 1]['role'] == 'assistant' %}{{ '[INST] ' }}"
    "{% else %}{{ '\n\n' }}{% endif %}{{ message['content'] }}"
    "{% if loop.last or messages[loop.index0 + 1]['role'] == 'assistant' %}{{ ' [/INST]' }}{% endif %}"
    "{% endif %}{% endfor %}"
)
"""For models without a template. It ends on ``]``, never on a space that would merge into the answer's first token."""

_PROBE = "\ue0a4probe\ue0a5"
_CONTINUED = "\ue0a6end of the message to continue\ue0a7 "
_FIELD = "prompt.conversation"
_PROBES: dict[Role, tuple[Role, ...]] = {
    "user": ("user",),
    "system": ("system", "user"),
    "assistant": ("user", "assistant", "user"),
}
"""For each role a short conversation in which it appears."""


class _Generation(Extension):
    """``{% generation %}``, with which templates mark the assistant's text for trainers: its body, as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Names(Namespace):
    """A namespace without the names that lead out of the sandbox."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        own, fields = args[0], dict(*args[1:], **kwargs)
        for name in fields:
            _Names._check(name)
        Namespace.__init__(own, fields)

    def __setitem__(self, name: str, value: Any) -> None:
        _Names._check(name)
        super().__setitem__(name, value)

    @staticmethod
    def _check(name: str) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace has no name {name!r}")


def _raise_exception(message: Any) -> None:
    raise TemplateError(str(message))


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _environment() -> BudgetedEnvironment:
    """As transformers' ``apply_chat_template`` sets it up."""
    environment = BudgetedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.globals["namespace"] = _Names
    environment.globals["dict"] = lambda *args, **kwargs: dict(*args, **kwargs)
    del environment.globals["lipsum"]
    return environment


class ChatTemplate:
    """One chat template. Safe to use from several threads."""

    def __init__(self, source: str, variables: dict[str, Any]) -> None:
        self.source = source
        self._variables = variables
        self._problem = ""
        try:
            self._template = _environment().budgeted(source)
        except Exception as error:
            self._problem = f"the model's chat template is no valid template: {error}"
        self._wants_parts: dict[Role, bool] = {}
        for role, around in _PROBES.items():
            self._wants_parts[role] = self._probe(role, around)

    def render(
        self,
        messages: Sequence[tuple[Role, str]],
        *,
        continue_final: bool = False,
        more: Sequence[Mapping[str, Any]] = (),
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """The text of a conversation of roles and contents, as ``apply_chat_template`` renders it.

        ``more``: other fields of each message. ``tools``: functions that may be called.
        Raises PromptError for whatever goes wrong in the template, and where it works for too long.
        """
        if self._problem:
            raise PromptError(_FIELD, self._problem)
        contents = [content for _, content in messages]
        if continue_final:
            contents[-1] += _CONTINUED
        shaped = [self._shaped(role, text) for (role, _), text in zip(messages, contents, strict=True)]
        for message, fields in zip(shaped, more, strict=False):
            message |= fields
        size = sum(map(len, contents)) + len(json.dumps([*more, *tools]))
        text = self._run(shaped, size, continue_final, **({"tools": list(tools)} if tools else {}))
        if not continue_final:
            return text
        place = text.rfind(_CONTINUED.strip())
        if place < 0:
            raise PromptError(_FIELD, "the model's chat template does not show the end of the message to continue")
        # A template that trims the message has trimmed the mark's space: then the message ends without one, too.
        return text[:place] if text.startswith(_CONTINUED, place) else text[:place].rstrip()

    def opens_thoughts(self, marker: str) -> bool:
        """Whether a prompt ends in ``marker`` where ``enable_thinking`` asks for a thought, and only there."""
        if self._problem:
            return False
        messages = [self._shaped("user", _PROBE)]
        try:
            plain, asked = (self._run(messages, len(_PROBE), False, **more) for more in ({}, {"enable_thinking": True}))
        except PromptError:
            return False
        return asked.rstrip().endswith(marker) and not plain.rstrip().endswith(marker)

    def _run(self, messages: list[dict[str, Any]], size: int, continue_final: bool, **more: Any) -> str:
        budget = RenderBudget(size)
        try:
            pieces = self._template.generate(
                messages=messages,
                documents=None,
                add_generation_prompt=not continue_final,
                **self._variables,
                **{"tools": None, **more},
                **budget.variables,
            )
            return "".join(budget.pieces(pieces))
        except TemplateError as error:
            raise PromptError(_FIELD, f"the model's chat template refuses it: {error}") from error
        except Exception as error:
            raise PromptError(
                _FIELD, f"the model's chat template fails on it: {type(error).__name__}: {error}"
            ) from error

    def _shaped(self, role: Role, text: str) -> dict[str, Any]:
        if self._wants_parts.get(role, False):
            return {"role": role, "content": [{"type": "text", "text": text}]}
        return {"role": role, "content": text}

    def _probe(self, role: Role, roles: Sequence[Role]) -> bool:
        """Whether the content of a role shows only as a list of parts."""
        if self._problem:
            return False
        shown = []
        for is_list in (False, True):
            messages: list[dict[str, Any]] = []
            for one in roles:
                probed = is_list and (one == role or self._wants_parts.get(one, False))
                text = _PROBE if one == role else "question"
                messages.append({"role": one, "content": [{"type": "text", "text": text}] if probed else text})
            try:
                shown.append(_PROBE in self._run(messages, 0, False))
            except PromptError:
                shown.append(False)
        return shown == [False, True]
