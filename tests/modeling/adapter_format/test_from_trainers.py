"""Adapter directories as trainers leave them: files of their own beside the weights, resized vocabularies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.errors import AdapterError
from ift_serve.modeling.adapter_format.reader import read_adapter

_FILES = (
    "training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state_3.pth",
    "random_states_0.pkl", "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "mp_rank_00_model_states.pt",
    "global_step12/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "latest", "zero_to_fp32.py", "trainer_state.json",
    "pytorch_model_fsdp_0/__0_0.distcp", "tokenizer.json", "tokenizer.model", "added_tokens.json", "merges.txt",
    "chat_template.jinja", "runs/Nov27/events.out.tfevents.1", "events.out.tfevents.2", ".DS_Store", "._x",
    "wandb/run.wandb", "dataset.pickle", "notes.ckpt",
)  # fmt: skip


def test_a_trainers_other_files_are_left_alone(adapter: Path, metadata: BaseMetadata) -> None:
    before = read_adapter(adapter, metadata)
    for name in _FILES:
        (adapter / name).parent.mkdir(parents=True, exist_ok=True)
        (adapter / name).write_bytes(b"\x80\x04not to be read")
    after = read_adapter(adapter, metadata)
    assert after.version == before.version and set(after.lora) == set(before.lora)


def test_files_without_rights_do_not_matter_either(adapter: Path, metadata: BaseMetadata) -> None:
    (adapter / "optimizer.pt").symlink_to("/nowhere/at/all")
    (adapter / "global_step1").symlink_to("/dev")
    read_adapter(adapter, metadata)


def _resized(base: Path, size: int, directory: Path, *, all_layers: bool, **options: Any) -> Path:
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(size)
    adapted = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False, **options))
    adapted.save_pretrained(str(directory), save_embedding_layers=True if all_layers else "auto")
    return directory


@pytest.mark.parametrize("size", [150, 164, 192])
@pytest.mark.parametrize("model", ["llama", "llama-biased"])
@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
    ],
    ids=["saved", "modules to save", "LoRA of embeddings", "LoRA of the head"],
)
def test_a_resized_vocabulary_is_refused_for_what_it_is(
    base_of: Callable[[str], Path], tmp_path: Path, model: str, options: dict[str, Any], size: int
) -> None:
    torch.manual_seed(0)
    base = base_of(model)
    adapter = _resized(base, size, tmp_path / "adapter", all_layers=True, **options)
    with pytest.raises(AdapterError) as refused:
        read_adapter(adapter, BaseMetadata.of_directory(base))
    said = str(refused.value)
    assert f"made for a vocabulary of {size} tokens, and the base model has 160" in said
    assert f"resize_token_embeddings({size})" in said


def test_what_the_advice_makes_is_served(base_of: Callable[[str], Path], tmp_path: Path) -> None:
    base = base_of("llama")
    resized = AutoModelForCausalLM.from_pretrained(base)
    resized.resize_token_embeddings(164)
    resized.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(resized, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=True)
    assert read_adapter(tmp_path / "adapter", BaseMetadata.of_directory(tmp_path / "base")).lora
