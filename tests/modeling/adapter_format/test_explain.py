"""What `ift-serve adapters inspect` has to say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.explain import explain, rows
from ift_serve.modeling.adapter_format.reader import read_adapter
from tests.modeling.adapter_format.cases import save_with_peft


def test_a_whole_adapter(metadata: BaseMetadata, original: Path) -> None:
    weights = read_adapter(original, metadata)
    summary = explain(weights)
    assert json.loads(json.dumps(summary)) == summary
    assert summary["version"] == weights.version
    assert summary["lora"] == {
        "modules": 6,
        "kinds": ["down_proj", "q_proj"],
        "ranks": [4],
        "scales": [2.0],
        "dora": False,
        "dtypes": ["float32"],
    }
    assert summary["components"] == {"segment_embedding": True, "attention_bias": True, "adherence_head": 8}
    assert set(summary["component_tensors"]) == set(weights.extras)
    shown = dict(rows(summary))
    assert shown["LoRA"] == "6 modules: down_proj, q_proj"
    assert shown["base"].startswith("LlamaForCausalLM ")
    assert shown["component adherence_head"] == "width 8"
    assert shown["scores"] == "overall 0.75"


def test_an_adapter_of_pefts(base_of: Callable[[str], Path], tmp_path: Path) -> None:
    path = base_of("llama")
    options: dict[str, Any] = {
        "target_modules": ["q_proj"],
        "modules_to_save": ["lm_head"],
        "trainable_token_indices": [9, 4],
    }
    adapter = save_with_peft(path, tmp_path / "adapter", r=4, use_dora=True, **options)
    summary = explain(read_adapter(adapter, BaseMetadata.of_directory(path)))
    assert summary["replaced"] == {"lm_head.weight": [160, 64]}
    assert summary["trainable_tokens"] == {"model.embed_tokens": [4, 9]}
    shown = dict(rows(summary))
    assert "weight-decomposed" in shown["LoRA"]
    assert shown["base"] == "not named; shapes fit"
    assert "scores" not in shown and "template" not in shown
