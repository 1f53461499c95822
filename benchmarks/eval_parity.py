"""Whether our server scores as lm-eval's own ``hf`` backend does, with the same weights; and what choices cost.

    python benchmarks/eval_parity.py --model DIR --json

Two multiple-choice sets and one generation set, generated from the procedural families' held-out prompts and from word
lists of this project. Log-likelihoods in float32 on both sides (goal: within 1e-3), every verdict alike, and a question
with four choices by one call against one call a choice, in tokens that the server says it has read (goal: a third).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ift_serve.checks.categories import CATEGORIES
from ift_serve.client import Client
from ift_serve.embedded import model_path
from ift_serve.engine.config import EngineConfig
from ift_serve.engines.thread import local_engine
from ift_serve.evaluation.harness.backend import IftServeLM
from ift_serve.evaluation.serving.event_loop import EventLoopThread
from ift_serve.evaluation.tasks.adherence import Adherence
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig

TOLERANCE, SAVING = 1e-3, 3.0
_PREAMBLE = "Answer with one word. Read the list with care before you answer, since the order of its words matters. "


def odd_words(count: int) -> list[dict[str, Any]]:
    """Three words of one kind and one of another; which is the other?"""
    kinds = list(CATEGORIES)
    rows = []
    for number in range(count):
        own, other = CATEGORIES[kinds[number % 6]], CATEGORIES[kinds[(number + 1) % 6]]
        words = [own[(number + k) % len(own)] for k in range(3)]
        words.insert(number % 4, other[number % len(other)])
        question = f"{_PREAMBLE}Which word does not belong with the others: {', '.join(words)}? Answer:"
        rows.append({"question": question, "choices": [f" {word}" for word in words], "answer": number % 4})
    return rows


def next_words(count: int) -> list[dict[str, Any]]:
    """A list that goes on; which word comes next?"""
    words = CATEGORIES["animal"]
    rows = []
    for number in range(count):
        listed = [words[(number + k) % len(words)] for k in range(6)]
        choices = [f" {words[(number + 6 + 3 * k) % len(words)]}" for k in range(4)]
        question = f"{_PREAMBLE}Go on with the list: {', '.join(listed)},"
        rows.append({"question": question, "choices": choices, "answer": 0})
    return rows


def answers(count: int) -> list[dict[str, Any]]:
    """Instructions with one right answer."""
    items = [item for item in Adherence().items() if getattr(item.source[0], "type", "") == "exact"]
    chosen = [items[index * len(items) // count] for index in range(count)]
    return [{"question": item.text, "answer": item.source[0].answer} for item in chosen]


def tasks(folder: Path, questions: int, prompts: int) -> list[dict[str, Any]]:
    """Configurations of lm-eval."""
    choice = {
        "output_type": "multiple_choice", "doc_to_choice": "{{choices}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }  # fmt: skip
    drawn = {"until": ["\n"], "do_sample": False, "max_gen_toks": 24}
    generation = {
        "output_type": "generate_until", "generation_kwargs": drawn, "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    made = []
    for name, rows, kind in (
        ("odd_words", odd_words(questions), choice),
        ("next_words", next_words(questions), choice),
        ("answers", answers(prompts), generation),
    ):
        path = folder / f"{name}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        made.append(
            {
                "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(path)}},
                "test_split": "test", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}", **kind,
            }
        )  # fmt: skip
    return made


def samples(lm: Any, configurations: Sequence[dict[str, Any]], chat: bool) -> tuple[dict[str, Any], float]:
    """Samples by task and document, and the seconds that they took."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    begun = time.perf_counter()
    found = simple_evaluate(
        model=lm, tasks=list(configurations), task_manager=TaskManager(include_defaults=False), bootstrap_iters=0,
        apply_chat_template=chat,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    return {f"{task}/{s['doc_id']}": s for task, listed in found["samples"].items() for s in listed}, seconds


def compared(ours: Mapping[str, Any], hf: Mapping[str, Any]) -> dict[str, Any]:
    """The largest difference of log-likelihoods, and the documents whose verdicts differ."""
    largest, wrong, scores = 0.0, [], 0
    for key, sample in ours.items():
        other = hf[key]
        if any(sample.get(metric) != other.get(metric) for metric in ("acc", "acc_norm", "exact_match")):
            wrong.append(key)
        if "acc" in sample:
            for mine, theirs in zip(sample["resps"], other["resps"], strict=True):
                scores += 1
                largest = max(largest, abs(float(mine[0][0]) - float(theirs[0][0])))
    texts = [key for key, sample in ours.items() if "acc" not in sample]
    alike = sum(ours[key]["resps"] == hf[key]["resps"] for key in texts)
    return {
        "log_likelihoods": scores, "largest_difference": largest, "verdicts": len(ours),
        "verdicts_that_differ": len(wrong), "documents_that_differ": wrong[:20],
        "generated": len(texts), "generated_alike": alike,
    }  # fmt: skip


def prefill(address: str, questions: int) -> dict[str, Any]:
    """Tokens that the server has read for the questions in one call each, and in one call a choice."""
    with Client(address) as client:
        rows = next_words(questions)
        together = sum(client.score(row["question"], row["choices"]).usage.prompt_tokens for row in rows)
        apart = sum(client.score(row["question"], [c]).usage.prompt_tokens for row in rows for c in row["choices"])
    return {"together": together, "apart": apart, "ratio": apart / together}


def measure(model: Path, questions: int, prompts: int, chat: bool) -> dict[str, Any]:
    """Both backends, one after the other, on the same files."""
    engine = EngineConfig(model=str(model), dtype="float32", total_blocks=512, max_sequences=8)

    async def start() -> Server:
        server = Server(ServerConfig(engine=engine, port=0, metrics_port=None, drain_timeout=5), local_engine(engine))
        await server.start()
        return server

    with tempfile.TemporaryDirectory() as name, EventLoopThread() as loop:
        configurations = tasks(Path(name), questions, prompts)
        server = loop.run(start())
        try:
            address = f"127.0.0.1:{server.port}"
            lm = IftServeLM(address, results="none")
            try:
                ours, seconds = samples(lm, configurations, chat)
            finally:
                lm.close()
            report: dict[str, Any] = {"prefill": prefill(address, questions)}
        finally:
            loop.run(server.stop())
        hf, hf_seconds = samples(_hf(model), configurations, chat)
    report |= compared(ours, hf) | {"seconds": {"ift-serve": round(seconds, 2), "hf": round(hf_seconds, 2)}}
    within = report["largest_difference"] <= TOLERANCE and not report["verdicts_that_differ"]
    report["passed"] = within and report["prefill"]["ratio"] >= SAVING
    return report


def _hf(model: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=8)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, default=model_path())
    parser.add_argument("--questions", type=int, default=50, help="of each multiple-choice set")
    parser.add_argument("--prompts", type=int, default=50, help="of the generation set")
    parser.add_argument("--chat", action="store_true", help="prompts as conversations")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report: dict[str, Any] = {"cores": os.cpu_count(), "model": options.model.name}
    report |= measure(options.model, options.questions, options.prompts, options.chat)
    if options.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:>22}: {value}")


if __name__ == "__main__":
    main()
