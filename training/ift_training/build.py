"""Puts together what is trained: the base, PEFT's layers in it, the components."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ift_serve.modeling.adapter_format.base import BaseFacts
from ift_serve.modeling.adapter_format.config import BaseReference
from ift_serve.modeling.adapter_format.reader import shape_of
from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.decoder.attention import ATTENTION_NAME, register_attention
from ift_training.losses.multi_task import TaskBalance
from ift_training.model.instruction_model import InstructionModel
from ift_training.settings import TrainerSettings


@dataclass(slots=True)
class Built:
    """A model to train, and the facts of its base that its adapter names."""

    model: InstructionModel
    reference: BaseReference
    base_directory: str


def _quantised(settings: TrainerSettings) -> Any:
    if not settings.load_in_4bit:
        return None
    try:
        import bitsandbytes  # type: ignore[import-not-found] # noqa: F401
    except ImportError:
        raise ValueError("load_in_4bit: needs bitsandbytes (pip install bitsandbytes) and a GPU") from None
    if not torch.cuda.is_available():
        raise ValueError("load_in_4bit: bitsandbytes needs a GPU, and there is none here; leave it off")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _with_lora(model: Any, settings: TrainerSettings) -> Any:
    from peft import LoraConfig, get_peft_model

    lora = settings.lora
    return get_peft_model(
        model,
        LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, use_rslora=lora.rslora, use_dora=lora.dora,  # type: ignore[arg-type]
            target_modules=lora.targets, rank_pattern=dict(lora.rank_pattern), alpha_pattern=dict(lora.alpha_pattern),
            task_type="CAUSAL_LM",
        ),
    )  # fmt: skip


def build_model(base_directory: str, settings: TrainerSettings, tasks: list[str], seed: int) -> Built:
    """Load the base and attach everything that is trained, before anything is sharded or wrapped.

    Raises ValueError, naming the field, and OSError.
    """
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(seed)
    register_attention()
    facts = BaseFacts.of_directory(Path(base_directory))
    # Master weights of what is trained are float32; the forward pass runs in settings.precision.
    base = AutoModelForCausalLM.from_pretrained(
        base_directory, dtype=torch.float32, attn_implementation=ATTENTION_NAME,
        quantization_config=_quantised(settings),
    )  # fmt: skip
    base.requires_grad_(False)
    if settings.gradient_checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    wrapped = _with_lora(base, settings) if settings.lora.rank else base
    components = None
    if settings.components.names:
        components = InstructionComponents(settings.components, shape_of(facts))
    balance = TaskBalance(tasks, settings.losses.task_weights)
    model = InstructionModel(wrapped, components, balance, represents=settings.losses.representation > 0)
    reference = BaseReference(fingerprint=facts.fingerprint, architecture=facts.architecture, shape=shape_of(facts))
    return Built(model, reference, base_directory)
