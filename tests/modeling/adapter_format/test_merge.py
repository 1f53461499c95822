"""An adapter merged into its base: as PEFT merges it, and as the adapter is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from ift_serve.cli import app
from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.protocol.score import ScoreRequest
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.modeling.adapter_format import export
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.errors import AdapterError
from ift_serve.modeling.adapter_format.export import export_merged
from tests.support.adapters import EVERYTHING, write_random
from tests.support.architectures import build
from tests.support.engine_driver import Driver
from tests.support.hub_cache import cached

IDS = torch.tensor([[(17 * i + 5) % 150 + 6 for i in range(19)]])
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("llama", {"target_modules": "all-linear"}),
    "rslora": ("qwen3", {"target_modules": ["q_proj", "up_proj"], "use_rslora": True, "rank_pattern": {"up_proj": 2}}),
    "dora": ("gemma2", {"target_modules": ["q_proj", "down_proj"], "use_dora": True}),
    "embeddings": ("gemma2", {"target_modules": ["q_proj", "embed_tokens"]}),
    "head": ("llama", {"target_modules": ["lm_head", "embed_tokens"]}),
    "tokens": ("llama", {"target_modules": ["q_proj"], "trainable_token_indices": [20, 7]}),
    "saved": ("qwen2", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "tied-head": ("llama-biased", {"target_modules": ["lm_head"]}),
    "tied-embeddings": ("llama-biased", {"target_modules": ["embed_tokens", "q_proj"]}),
}


def _adapter(base: Path, output: Path, dtype: torch.dtype = torch.float32, **options: Any) -> PeftModel:
    torch.manual_seed(3)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=dtype), LoraConfig(r=4, task_type="CAUSAL_LM", **options)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (0.2 if "lora" in name else 0.05))
    model.save_pretrained(output)
    return model.eval()


def _logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(IDS).logits[0]
    return found.double()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_merged_model_computes_what_the_adapter_does(variant: str, tmp_path: Path) -> None:
    architecture, options = VARIANTS[variant]
    base = build(architecture, tmp_path / "base")
    expected = _logits(_adapter(base, tmp_path / "adapter", **options))
    export_merged(tmp_path / "adapter", base, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.allclose(_logits(merged), expected, atol=2e-5, rtol=1e-5)
    assert not torch.allclose(_logits(AutoModelForCausalLM.from_pretrained(base)), expected, atol=1e-2)


@pytest.mark.parametrize("saved", ["embed_tokens", "lm_head"])
def test_of_embeddings_and_a_head_that_the_files_hold_apart_only_the_saved_one_changes(
    saved: str, tmp_path: Path
) -> None:
    base = build("llama-biased", tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0).contiguous()
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    expected = _logits(_adapter(base, tmp_path / "adapter", target_modules=["q_proj"], modules_to_save=[saved]))
    export_merged(tmp_path / "adapter", base, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.allclose(_logits(merged), expected, atol=2e-5, rtol=1e-5)


def test_a_base_is_named_by_its_hub_id_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = build("llama", tmp_path / "base")
    _adapter(base, tmp_path / "a", target_modules=["q_proj"])
    cached(base, "some-org/tiny", tmp_path / "hub", monkeypatch)
    for name, place in ((str(base), "m"), ("some-org/tiny", "n")):
        command = ["adapters", "merge", str(tmp_path / "a"), "--base", name, "--output", str(tmp_path / place)]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    plain, by_id = (load_file(tmp_path / place / "model.safetensors") for place in "mn")
    assert all(torch.equal(plain[name], by_id[name]) for name in plain)
    command[command.index("some-org/tiny")] = "some-org/other"
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1 and "--base some-org/other: there is no such directory" in done.output
    assert (
        CliRunner().invoke(app, ["adapters", "inspect", str(tmp_path / "a"), "--base", "some-org/tiny"]).exit_code == 0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_those_of_pefts_merge_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    base = build("llama", tmp_path / "base", dtype=dtype)
    peft: Any = _adapter(base, tmp_path / "adapter", dtype, target_modules="all-linear")
    expected = peft.merge_and_unload().state_dict()
    export_merged(tmp_path / "adapter", base, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").state_dict()
    assert set(merged) == set(expected)
    for name, tensor in expected.items():
        assert merged[name].dtype == tensor.dtype == dtype and torch.equal(merged[name], tensor), name


def test_this_server_loads_a_merged_model(tmp_path: Path) -> None:
    base = build("llama", tmp_path / "base")
    expected = torch.log_softmax(_logits(_adapter(base, tmp_path / "a", target_modules="all-linear")), -1)
    export_merged(tmp_path / "a", base, tmp_path / "merged")
    config = EngineConfig(model=str(tmp_path / "merged"), dtype="float32", total_blocks=8, max_sequences=2)
    driver = Driver(EngineCore(ModelRunner(config), config, STRATEGIES))
    ids = IDS[0].tolist()
    driver.add(ScoreRequest(request_id="s", token_ids=ids[:5], continuations=[ids[5:]]))
    score = driver.run()["s"].score
    assert score is not None
    wanted = expected[torch.arange(4, len(ids) - 1), IDS[0, 5:]].tolist()
    assert score.scores[0].token_log_probs == pytest.approx(wanted, abs=2e-5)


def test_components_are_merged_by_nobody(tmp_path: Path) -> None:
    base = build("llama", tmp_path / "base")
    write_random(tmp_path / "a", BaseMetadata.of_directory(base), EVERYTHING, seed=1)
    with pytest.raises(AdapterError, match=r"segment_embedding.*--drop-components"):
        export_merged(tmp_path / "a", base, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    found = export_merged(tmp_path / "a", base, tmp_path / "merged", drop_components=True)
    assert found.components == list(EVERYTHING.names)


def test_what_stands_at_the_output_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = build("llama", tmp_path / "base")
    _adapter(base, tmp_path / "a", target_modules=["q_proj"])
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError):
            export_merged(tmp_path / "a", base, other, overwrite=overwrite)
    for place in (base, base / "inside", tmp_path, tmp_path / "a"):
        with pytest.raises(FileExistsError):
            export_merged(tmp_path / "a", base, place, overwrite=True)
    merged = tmp_path / "merged"
    export_merged(tmp_path / "a", base, merged)
    (merged / "old").touch()

    def full(_: Any) -> Any:
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(export, "_copies", full)
        with pytest.raises(OSError, match="full"):
            export_merged(tmp_path / "a", base, merged, overwrite=True)
    assert (merged / "old").exists()
    export_merged(tmp_path / "a", base, merged, overwrite=True)
    assert not (merged / "old").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_disk_without_room_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = build("llama", tmp_path / "base")
    _adapter(base, tmp_path / "a", target_modules=["q_proj"])
    monkeypatch.setattr(export, "_SPARE", 1 << 60)
    with pytest.raises(OSError, match=r"MiB free, and the model takes"):
        export_merged(tmp_path / "a", base, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_merge_that_overflows_names_the_weight(tmp_path: Path) -> None:
    base = build("llama", tmp_path / "base", dtype=torch.float16)
    model = _adapter(base, tmp_path / "a", torch.float16, target_modules=["v_proj"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.fill_(4e3)
    model.save_pretrained(tmp_path / "a")
    with pytest.raises(AdapterError, match=r"v_proj: a merged value is too large for float16"):
        export_merged(tmp_path / "a", base, tmp_path / "merged")


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    base = build("llama", tmp_path / "base")
    _adapter(base, tmp_path / "a", target_modules=["q_proj"])
    command = ["adapters", "merge", str(tmp_path / "a"), "--base", str(base), "--output", str(tmp_path / "m"), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["modules"] == 3
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1 and "--overwrite" in again.stderr
