"""A bound on the work of a template: loops, calls and text that grows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from jinja2 import Template, nodes, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

_STEPS, _STEPS_PER_CHARACTER = 500_000, 16
_OUTPUT, _OUTPUT_PER_CHARACTER = 2**20, 8
_CHARACTERS_PER_STEP = 64
_LARGEST = 10**6
_NAME = "ift_render_budget"


class TemplateWorkError(Exception):
    """A template works for too long, or writes too much."""


class RenderBudget:
    """Steps and characters that one rendering may still spend. ``size``: characters of the conversation."""

    def __init__(self, size: int) -> None:
        self._steps = _STEPS + _STEPS_PER_CHARACTER * size
        self._output = _OUTPUT + _OUTPUT_PER_CHARACTER * size

    @property
    def variables(self) -> dict[str, RenderBudget]:
        """What the template's context needs for the budget to be found."""
        return {_NAME: self}

    def spend(self, steps: int) -> None:
        """Take steps away. Raises TemplateWorkError."""
        self._steps -= steps
        if self._steps < 0:
            raise TemplateWorkError("it takes too many steps")

    def made(self, value: Any) -> Any:
        """A value that an expression has made: long ones cost steps."""
        self.spend(1 + len(value) // _CHARACTERS_PER_STEP if isinstance(value, str | list | tuple) else 1)
        return value

    def pieces(self, pieces: Iterable[str]) -> Iterator[str]:
        """The output as it is made. Raises TemplateWorkError."""
        for piece in pieces:
            self.made(piece)
            self._output -= len(piece)
            if self._output < 0:
                raise TemplateWorkError("it writes too much text")
            yield piece

    def items(self, iterable: Any) -> Any:
        """What a loop goes over, paid for in advance where its length is known."""
        if isinstance(iterable, Sized):
            self.spend(len(iterable) + 1)
            return iterable
        return self._counted(iterable)

    def _counted(self, iterable: Iterable[Any]) -> Iterator[Any]:
        for item in iterable:
            self.spend(1)
            yield item


def _budget(context: Context) -> RenderBudget:
    budget = context.parent.get(_NAME)
    if not isinstance(budget, RenderBudget):
        raise TemplateWorkError("it hides its own bound")
    return budget


@pass_context
def _items(context: Context, iterable: Any) -> Any:
    return _budget(context).items(iterable)


@pass_context
def _concatenated(context: Context, values: list[Any]) -> Any:
    return _budget(context).made("".join(map(str, values)))


class _Bound(NodeTransformer):
    """Puts the budget into loops and concatenations."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "ift_items", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        values = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(values, "ift_concatenated", [], [], None, None, lineno=node.lineno)


class BudgetedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox that transformers renders templates in, with every loop, call and operator counted."""

    intercepted_binops = frozenset(["*", "**", "+", "%"])

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters["ift_items"] = _items
        self.filters["ift_concatenated"] = _concatenated

    def budgeted(self, source: str) -> Template:
        """A template whose rendering needs ``RenderBudget.variables``. Raises TemplateSyntaxError."""
        tree = _Bound().visit(self.parse(source))
        code = self.compile(tree)
        return Template.from_code(self, code, self.make_globals(None))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator; results that would be huge are not computed."""
        budget = _budget(context)
        if operator == "*" and max(_grown(left, right), _grown(right, left)) > _LARGEST:
            raise TemplateWorkError("it makes too long a text")
        if operator == "**" and _power(left, right) > _LARGEST:
            raise TemplateWorkError("it makes too large a number")
        if operator == "%" and isinstance(left, str):
            _check_format(left)
        return budget.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call, of a method of text too: widths are bounded."""
        budget = _budget(__context)
        budget.spend(1)
        # The sandbox hands out a function of its own for the methods of text that format.
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        if isinstance(owner, str):
            if any(isinstance(a, int) and a > _LARGEST for a in args):
                raise TemplateWorkError("it makes too long a text")
            if getattr(__obj, "__name__", "") in ("format", "format_map"):
                _check_format(owner)
            budget.spend(len(owner) // _CHARACTERS_PER_STEP)
        return budget.made(super().call(__context, __obj, *args, **kwargs))


def _grown(text: Any, count: Any) -> int:
    """Length of a repeated text, or bits of a product."""
    if isinstance(text, int) and isinstance(count, int):
        return text.bit_length() + count.bit_length()
    return len(text) * count if isinstance(text, str | list | tuple) and isinstance(count, int) else 0


def _power(base: Any, exponent: Any) -> int:
    return base.bit_length() * exponent if isinstance(base, int) and isinstance(exponent, int) else 0


def _check_format(form: str) -> None:
    """Raise TemplateWorkError for a width that makes a text huge."""
    if len(form) <= _CHARACTERS_PER_STEP**2 and re.search(r"[%:.>^<][^a-zA-Z]{0,4}\d{6}", form):
        raise TemplateWorkError("it makes too long a text")
