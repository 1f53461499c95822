"""Our backend beside lm-eval's own on the same weights, through lm-eval's own evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from ift_serve.embedded import model_path
from ift_serve.evaluation.harness.backend import IftServeLM
from ift_serve.evaluation.tasks.adherence import Adherence

_TEXTS = ("the fox ran to the river", "Which word is an animal? table, apple, horse", "What is 23 + 14?\nAnswer:")
_ENDS = (" yes", " no", " the river and the dog", " 37")


def _hf(directory: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(directory), dtype="float32", device="cpu", batch_size=4)


def _instances(kind: Any, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, args, 0, ("t", i, 1)) for i, args in enumerate(arguments)]


@pytest.fixture(scope="module")
def pair(embedded_server: str) -> Any:
    ours = IftServeLM(embedded_server, results="none")
    yield ours, _hf(model_path())
    ours.close()


def test_log_likelihoods_are_those_of_hf(pair: tuple[IftServeLM, Any]) -> None:
    ours, hf = pair
    asked = [(text, end) for text in _TEXTS for end in _ENDS] + [("", "the fox"), ("the fox ", "ran")]
    found = ours.loglikelihood(_instances("loglikelihood", asked), disable_tqdm=True)
    expected = hf.loglikelihood(_instances("loglikelihood", asked), disable_tqdm=True)
    assert [a for a, _ in found] == pytest.approx([a for a, _ in expected], abs=1e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


def test_log_likelihoods_in_conversations_are_those_of_hf(pair: tuple[IftServeLM, Any]) -> None:
    ours, hf = pair
    history = [{"role": "user", "content": _TEXTS[1]}]
    for begun in ([], [{"role": "assistant", "content": "The word"}]):
        contexts = [lm.apply_chat_template(history + begun, add_generation_prompt=not begun) for lm in pair]
        found, expected = (
            lm.loglikelihood(_instances("loglikelihood", [(context, end) for end in _ENDS]), disable_tqdm=True)
            for lm, context in zip((ours, hf), contexts, strict=True)
        )
        assert [a for a, _ in found] == pytest.approx([a for a, _ in expected], abs=1e-3)


def test_whole_texts_have_the_log_likelihood_of_hf(pair: tuple[IftServeLM, Any]) -> None:
    ours, hf = pair
    texts = [(text,) for text in (*_TEXTS, " ".join(_TEXTS) * 40)]
    found = ours.loglikelihood_rolling(_instances("loglikelihood_rolling", texts), disable_tqdm=True)
    expected = hf.loglikelihood_rolling(_instances("loglikelihood_rolling", texts), disable_tqdm=True)
    assert found == pytest.approx(expected, abs=1e-3, rel=1e-5)


def _choices(count: int, shift: int) -> list[dict[str, Any]]:
    words = ["cat", "table", "apple", "horse", "seven", "green", "river", "shoe"]
    return [
        {
            "question": f"Which word comes next: {words[i % 8]}, {words[(i + shift) % 8]}?",
            "choices": [words[(i + j) % 8] for j in range(4)],
            "answer": i % 4,
        }
        for i in range(count)
    ]


def _task(name: str, data: Path, **config: Any) -> dict[str, Any]:
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        **config,
    }


@pytest.mark.parametrize("chat", [pytest.param(False, marks=pytest.mark.slow), True])
def test_every_verdict_of_lm_evals_tasks_is_that_of_hf(embedded_server: str, tmp_path: Path, chat: bool) -> None:
    tasks = []
    for name, shift in (("first_choices", 1), ("other_choices", 3)):
        (tmp_path / name).write_text("\n".join(map(json.dumps, _choices(40, shift))), encoding="utf-8")
        metrics = [{"metric": "acc"}, {"metric": "acc_norm"}]
        kind: dict[str, Any] = {
            "output_type": "multiple_choice",
            "doc_to_choice": "{{choices}}",
            "metric_list": metrics,
        }
        tasks.append(_task(name, tmp_path / name, **kind))
    items = Adherence().items()[::15]
    rows = [{"question": i.text, "answer": getattr(i.source[0], "answer", "yes")} for i in items]
    (tmp_path / "generation").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    drawn = {"until": ["\n\n"], "do_sample": False, "max_gen_toks": 24}
    kind = {"output_type": "generate_until", "generation_kwargs": drawn, "metric_list": [{"metric": "exact_match"}]}
    tasks.append(_task("generation", tmp_path / "generation", **kind))

    def samples(lm: Any) -> dict[str, Any]:
        found = simple_evaluate(
            model=lm, tasks=tasks, task_manager=TaskManager(include_defaults=False), apply_chat_template=chat,
            bootstrap_iters=0,
        )  # fmt: skip
        return {
            f"{name}/{s['doc_id']}": (s.get("acc"), s.get("acc_norm"), s.get("exact_match"), s["resps"])
            for name, listed in found["samples"].items()
            for s in listed
        }

    ours = IftServeLM(embedded_server, results="none")
    try:
        found = samples(ours)
    finally:
        ours.close()
    expected = samples(_hf(model_path()))
    assert found.keys() == expected.keys() and len(found) == 80 + len(items)
    for key, (*verdicts, responses) in found.items():
        assert tuple(verdicts) == expected[key][:3], key
        if key.startswith("generation"):
            assert responses == expected[key][3]
