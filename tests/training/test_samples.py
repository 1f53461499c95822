"""Answers shown during a training: the same requests each time, beside the answer before the first step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM

from ift_serve.text.prompt import PromptRenderer
from ift_serve.text.tokenizer import load_tokenizer
from ift_training.data.encode import Encoder
from ift_training.data.selection import prepare
from ift_training.data.settings import SourceSettings, ValidationSettings
from ift_training.evaluation.samples import Samples
from ift_training.prepare import RUN_FOLDER
from ift_training.recipe import Recipe
from ift_training.run import train

pytestmark = pytest.mark.usefixtures("no_picture")


def samples(base: Path, folder: Path, count: int, *, length: int = 20) -> Samples:
    paths = []
    for name in ("a", "b"):
        path = folder / f"{name}.jsonl"
        lines = [{"instruction": f"{name}{i} " + "long " * length, "output": "yes"} for i in range(4)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        paths.append(SourceSettings(file=path))
    encoder = Encoder(PromptRenderer(load_tokenizer(str(base))), 2000)
    data = prepare(paths[:1], ValidationSettings(sources=paths), encoder, 0)
    return Samples(data.validation, encoder, count=count, max_new_tokens=4, batch_size=8)


def test_requests_come_from_each_task_in_turn_and_are_bounded(base: Path, tmp_path: Path) -> None:
    found = samples(base, tmp_path, 3, length=200)
    assert [sample.request[:2] for sample in found.samples] == ["a0", "b0", "a1"]
    assert all(len(sample.request) == 300 and sample.request.endswith("…") for sample in found.samples)
    assert not samples(base, tmp_path, 0)
    assert len(samples(base, tmp_path, 32).samples) == 8


def test_a_run_shows_and_keeps_its_samples(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = Recipe.parse(
        {
            "base": str(base),
            "output": str(tmp_path / "out"),
            "max_length": 200,
            "sources": [{"procedural": ["frame", "repeat"], "count": 24}],
            "validation": {"share": 0.25},
            "evaluation": {"every": 2, "examples": 2, "max_new_tokens": 4, "samples": 2},
            "trainer": {"batch_size": 4, "max_steps": 4, "learning_rate": 5e-2, "lora": {"rank": 4}},
        }
    )
    train(chosen)
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out" / RUN_FOLDER / "report.json").read_text())
    assert len(report["samples"]) == 2
    events = EventAccumulator(str(next((tmp_path / "out" / RUN_FOLDER / "runs").iterdir())))
    events.Reload()
    for number, sample in enumerate(report["samples"]):
        assert [entry["step"] for entry in sample["steps"]] == [2, 4]
        assert sample["after"] in [entry["answer"] for entry in sample["steps"]]
        tag = f"samples/{number}_{sample['task']}/text_summary"
        texts = [event.tensor_proto.string_val[0].decode() for event in events.Tensors(tag)]
        assert all(sample["request"].split("\n")[0] in text for text in texts) and len(texts) == 2
    assert "step 2, frame:" in printed and "step 4, repeat:" in printed and "before:" in printed


def test_what_is_shown_before_is_the_base_models_own_answer(base: Path, tmp_path: Path) -> None:
    from ift_training.build import build_model
    from ift_training.settings import TrainerSettings

    found = samples(base, tmp_path, 2)
    built = build_model(str(base), TrainerSettings(), ["a", "b"], 0)
    found.keep_before(built.model.causal, built.model.components)
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = load_tokenizer(str(base))
    for sample in found.samples:
        message = {"role": "user", "content": sample.request}
        prompt = tokenizer.apply_chat_template([message], add_generation_prompt=True)["input_ids"]
        ids = list(prompt)
        for _ in range(4):
            with torch.inference_mode():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                ids.pop()
                break
        assert sample.before == tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)
