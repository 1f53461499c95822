"""lm-eval's own client of chat completions, on a task of local data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("httptools", reason="needs the package httptools (extra gateway)")
pytest.importorskip("lm_eval", reason="needs the package lm-eval (extra eval)")
pytest.importorskip("openai", reason="needs the package openai (extra dev)")

from ift_serve.client import Client, Message
from tests.gateway.conftest import ADMIN
from tests.support.gateway import RunningGateway, Serving

_TASK = """
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n\\n"], do_sample: false, max_gen_toks: 48}}
metric_list: [{{metric: exact_match}}]
"""


def test_local_chat_completions_gets_the_servers_answers(
    running: RunningGateway, serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    questions = [f"What is {a} + {b}?" for a, b in ((23, 14), (38, 35), (5, 6))]
    with Client(serving.address, token=ADMIN) as direct:
        own = [
            direct.generate([Message("user", q)], temperature=0, stop=["\n\n"], max_new_tokens=48, seed=1234).text
            for q in questions
        ]
    rows = [{"question": q, "answer": own[0] if n == 0 else "no"} for n, q in enumerate(questions)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "sums.yaml").write_text(_TASK.format(data=tmp_path / "rows.jsonl"), encoding="utf-8")
    monkeypatch.setenv("OPENAI_API_KEY", ADMIN)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    found = lm_eval.simple_evaluate(
        model="local-chat-completions",
        model_args={"model": "ift-tiny", "base_url": f"{running.url}/v1/chat/completions", "num_concurrent": 2},
        tasks=["sums"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        apply_chat_template=True,
        log_samples=True,
        bootstrap_iters=0,
    )
    answers = [sample["resps"][0][0] for sample in sorted(found["samples"]["sums"], key=lambda s: s["doc_id"])]
    assert answers == own
    assert found["results"]["sums"]["exact_match,none"] == pytest.approx(1 / 3)
