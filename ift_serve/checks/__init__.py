"""Verdicts on text: what a response can be held to, and whether it does it. Knows no model, request or record."""

from ift_serve.checks.check import Check
from ift_serve.checks.pass_rates import PassRates, pass_rates
from ift_serve.checks.registry import CHECKS, fields_of, judge, judge_all, parse_check, parse_checks
from ift_serve.checks.verdict import PASSED, Verdict

__all__ = [
    "CHECKS",
    "PASSED",
    "Check",
    "PassRates",
    "Verdict",
    "fields_of",
    "judge",
    "judge_all",
    "parse_check",
    "parse_checks",
    "pass_rates",
]
