"""A megabyte of hostile text takes every check a bounded time: work is linear, so nothing has to be cut off."""

from __future__ import annotations

import gc
import time

import pytest

from ift_serve.checks import CHECKS, Check, parse_check
from ift_serve.checks.instructions import INSTRUCTIONS
from tests.support.hostile_checks import PIECES, constraints, repeated

for package in ("langdetect", "punkt", "emoji", "syllapy"):
    pytest.importorskip(package, reason=f"some instructions need {package}, of the extra eval")

_SIZE, _SMALL = 1_000_000, 32_000
_SECONDS = 6.0
"""Of processor time for a check of a megabyte, in either column; a slow core takes 2 s for the worst one."""


_CHECKS = {name: [parse_check(one) for one in found] for name, found in constraints().items()}


def _worst(checks: list[Check], size: int) -> tuple[float, str]:
    """Seconds of this thread for the slowest verdict, and the text that it was about."""
    worst = (0.0, "")
    gc.freeze()  # what other tests left is not what a check would have the collector look through
    for name, piece in PIECES.items():
        text = repeated(piece, size)
        for check in checks:
            begun = time.thread_time()
            verdict = check.verdict(text, "a prompt")
            worst = max(worst, (time.thread_time() - begun, name))
            assert verdict.span is None or 0 <= verdict.span[0] <= verdict.span[1] <= len(text)
    gc.unfreeze()
    return worst


def test_every_type_and_instruction_is_attacked() -> None:
    assert _CHECKS.keys() == (CHECKS.keys() - {"instruction"}) | INSTRUCTIONS.keys()


@pytest.mark.parametrize("name", [name for name in _CHECKS if name not in INSTRUCTIONS])
def test_hostile_text_takes_a_check_no_time(name: str) -> None:
    seconds, text = _worst(_CHECKS[name], _SMALL)
    assert seconds < _SECONDS * _SMALL / _SIZE + 0.3, text


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", list(_CHECKS))
def test_a_megabyte_of_hostile_text_takes_a_bounded_time(name: str) -> None:
    seconds, text = _worst(_CHECKS[name], _SIZE)
    print(f"{name}: {seconds:.2f} s, {text}")
    assert seconds < _SECONDS, text
