"""Sums that are written out in an answer."""

from __future__ import annotations

import re

from ift_training.data.procedural.example import PASSED, Verdict

_EQUATION = re.compile(r"(?<![\w.])\d{1,18}(?:\s*[+-]\s*\d{1,18})+\s*=\s*-?\d{1,18}(?!\d)")
_TERM = re.compile(r"([+-]?)\s*(\d+)")
_NUMBER = re.compile(r"(?<!\w)-?\d+(?:\.\d+)?")
_LEAST_STEPS = 2


def check_steps(response: str) -> Verdict:
    """At least two equations of any number of terms, each of them true."""
    equations = list(_EQUATION.finditer(response))
    if len(equations) < _LEAST_STEPS:
        return Verdict(False, "fewer than two written steps")
    for found in equations:
        terms, _, result = found.group().partition("=")
        total = sum(int(sign + digits) for sign, digits in _TERM.findall(terms))
        if total != int(result):
            return Verdict(False, f"{found.group()} is not true", found.span())
    return PASSED


def check_last_number(expected: int, response: str) -> Verdict:
    """The last number of the answer is the one expected, however it is written."""
    numbers = list(_NUMBER.finditer(response))
    if not numbers:
        return Verdict(False, "no number in the answer")
    last = numbers[-1]
    return (
        PASSED if float(last.group()) == expected else Verdict(False, f"the last number is not {expected}", last.span())
    )
