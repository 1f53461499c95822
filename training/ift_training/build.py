"""Puts together what is trained: the base, PEFT's layers in it, the components."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.config import BaseReference
from ift_serve.modeling.adapter_format.reader import shape_of
from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.decoder.model_loader import UnsupportedModelError, load_whole
from ift_training.losses.multi_task import TaskBalance
from ift_training.model.instruction_model import InstructionModel
from ift_training.recipe import Recipe, RecipeError
from ift_training.settings import TrainerSettings


@dataclass(slots=True)
class Built:
    """A model to train, and the metadata of its base that its adapter names."""

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
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            use_rslora=lora.rslora,
            use_dora=lora.dora,  # type: ignore[arg-type]
            target_modules=lora.targets,
            rank_pattern=dict(lora.rank_pattern),
            alpha_pattern=dict(lora.alpha_pattern),
            task_type="CAUSAL_LM",
        ),
    )


def build_model(
    base_directory: str, settings: TrainerSettings, tasks: list[str], seed: int, hub_id: str | None = None
) -> Built:
    """Load the base and attach everything that is trained, before anything is sharded or wrapped.

    hub_id: what the adapter calls its base, in place of the directory. Raises ValueError, naming the field, OSError,
    and UnsupportedModelError for a base whose files are not whole.
    """
    from transformers import set_seed

    set_seed(seed)
    metadata = BaseMetadata.of_directory(Path(base_directory))
    # Master weights of trained parameters are float32; the forward pass runs in settings.precision.
    shown = hub_id or base_directory
    base, _, _ = load_whole(
        base_directory, shown, lambda config: torch.float32, quantization_config=_quantised(settings)
    )
    base.name_or_path = shown
    base.requires_grad_(False)
    if settings.gradient_checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    wrapped = _with_lora(base, settings) if settings.lora.rank else base
    components = None
    if settings.components.names:
        components = InstructionComponents(settings.components, shape_of(metadata))
    balance = TaskBalance(tasks, settings.losses.task_weights)
    model = InstructionModel(wrapped, components, balance, represents=settings.losses.representation > 0)
    reference = BaseReference(
        fingerprint=metadata.fingerprint, architecture=metadata.architecture, shape=shape_of(metadata)
    )
    return Built(model, reference, base_directory)


def build_recipe(recipe: Recipe, tasks: list[str]) -> Built:
    """What a recipe trains. Raises RecipeError."""
    try:
        return build_model(recipe.base_directory(), recipe.trainer, tasks, recipe.seed, recipe.hub_id)
    except UnsupportedModelError as error:
        raise RecipeError(f"base: {error}") from error
    except OSError as error:
        raise RecipeError(f"base: {recipe.base}: {error}") from error
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"trainer: {error}") from error
