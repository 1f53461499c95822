"""Adapters made by PEFT itself on small random models, every trained tensor of them random and far from zero."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

TOKENS = torch.tensor([[(17 * i + 5) % 150 + 6 for i in range(23)]])


def base_model(path: Path) -> nn.Module:
    """A fresh copy of a model, in float32."""
    model: nn.Module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    return model


def save_with_peft(base: Path, output: Path, *, seed: int = 3, **options: Any) -> Path:
    """An adapter directory as PEFT writes it."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(base_model(base), LoraConfig(task_type="CAUSAL_LM", **options))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * (0.2 if "lora" in name else 0.1))
        model.save_pretrained(output)
    return output


@torch.inference_mode()
def peft_logits(base: Path, adapter: Path) -> Tensor:
    """What PEFT computes with the directory, loaded by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(base_model(base), str(adapter)).eval()
    logits: Tensor = model(TOKENS).logits
    return logits


@torch.inference_mode()
def logits(model: nn.Module) -> Tensor:
    """Of the same tokens."""
    found: Tensor = model(TOKENS).logits
    return found
