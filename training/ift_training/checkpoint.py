"""Checkpoints of a run: trained tensors and optimiser state, whole whether sharded or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ift_serve.modeling.adapter_format.config import IFT_CONFIG, IFT_WEIGHTS, PEFT_CONFIG, PEFT_WEIGHTS, IftConfig
from ift_training.losses.ewc import trainable
from ift_training.model.instruction_model import InstructionModel
from ift_training.model.sharding import into, reshard, whole
from ift_training.saved import OPTIMIZER, SCHEDULER
from ift_training.settings import TrainerSettings

TRAINING_STATE = "training_state.safetensors"
"""What is trained but is no part of the adapter: weights of tasks, the projection of the representation loss."""
_LORA_FIELDS = {
    "r": "rank",
    "lora_alpha": "alpha",
    "use_rslora": "rslora",
    "use_dora": "dora",
    "target_modules": "targets",
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
}
"""Fields of PEFT's configuration that decide what its tensors mean, and what recipes call them."""
_COMPONENTS = "components."
_SEPARATOR = "|"


def gather(model: nn.Module) -> dict[str, Tensor]:
    """Every trained tensor in full, on the CPU, by parameter name. All processes must call it."""
    reshard(model)
    return {name: whole(parameter).cpu() for name, parameter in trainable(model).items()}


def place(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put full tensors, by parameter name, into a model that may be sharded. All processes must call it."""
    reshard(model)
    parameters = trainable(model)
    for name, tensor in tensors.items():
        into(parameters[name], tensor)


def file_of(model: InstructionModel) -> dict[str, tuple[str, str]]:
    """File and name in it of every trained parameter, by parameter name."""
    names = list(trainable(model))
    found = {name: (TRAINING_STATE, name) for name in names}
    for name in names:
        if name.startswith(_COMPONENTS):
            found[name] = (IFT_WEIGHTS, name.removeprefix(_COMPONENTS))
    for name, key in _peft_names(model, names).items():
        found[name] = (PEFT_WEIGHTS, key)
    return found


def _peft_names(model: InstructionModel, names: list[str]) -> dict[str, str]:
    """What PEFT calls a parameter in its files. PEFT itself is asked, with the names' indices for tensors."""
    if not hasattr(model.base, "peft_config"):
        return {}
    from peft import get_peft_model_state_dict

    own = [name for name in names if name.startswith("base.")]
    asked = {name.removeprefix("base."): torch.tensor(index) for index, name in enumerate(own)}
    given = get_peft_model_state_dict(model.base, state_dict=asked, save_embedding_layers=False)
    return {own[int(index)]: key for key, index in given.items()}


def peft_fields(model: InstructionModel) -> dict[str, Any] | None:
    """PEFT's configuration as its file holds it; None without a low-rank part."""
    if not hasattr(model.base, "peft_config"):
        return None
    base: Any = model.base
    return {**base.peft_config["default"].to_dict(), "inference_mode": True}


def by_file(model: InstructionModel, tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by file and by name in it, from tensors by parameter name."""
    found: dict[str, dict[str, Tensor]] = {PEFT_WEIGHTS: {}, IFT_WEIGHTS: {}, TRAINING_STATE: {}}
    for name, (file, key) in file_of(model).items():
        found[file][key] = tensors[name].contiguous()
    return found


def read(model: InstructionModel, directory: Path, settings: TrainerSettings) -> dict[str, Tensor]:
    """The trained tensors that a directory holds, by parameter name.

    Raises ValueError, naming the field of the recipe, unless the directory was trained with the same low-rank part and
    components and holds all of their tensors and no others.
    """
    _check_settings(model, directory, settings)
    files = {}
    for name in (PEFT_WEIGHTS, IFT_WEIGHTS, TRAINING_STATE):
        if (path := directory / name).exists():
            try:
                files[name] = load_file(path)
            except (OSError, SafetensorError) as error:
                raise ValueError(f"{path}: cannot be read: {error}") from error
    found = {}
    parameters = trainable(model)
    for name, (file, key) in file_of(model).items():
        tensor = files.get(file, {}).pop(key, None)
        if tensor is not None and tensor.shape == parameters[name].shape:
            found[name] = tensor
        elif file != TRAINING_STATE:
            lacks = f"has no {key}" if tensor is None else f"{key} is {tuple(tensor.shape)}"
            raise ValueError(f"{directory / file}: {lacks}; it was trained with other `lora` or `components`")
    left = sorted(key for file in (PEFT_WEIGHTS, IFT_WEIGHTS) for key in files.get(file, {}))
    if left:
        raise ValueError(f"{directory}: {left[0]} is not trained here; use the `lora` and `components` of that run")
    return found


def metadata(model: InstructionModel, settings: TrainerSettings) -> dict[str, str]:
    """What decides how trained tensors are read, by field of a recipe."""
    fields = {"trainer.components": settings.components.model_dump_json()}
    if (peft := peft_fields(model)) is not None:
        fields |= {f"trainer.lora.{ours}": _plain(peft.get(theirs)) for theirs, ours in _LORA_FIELDS.items()}
    return fields


def _plain(value: Any) -> str:
    return json.dumps(sorted(value) if isinstance(value, list | set | tuple) else value, sort_keys=True)


def _check_settings(model: InstructionModel, directory: Path, settings: TrainerSettings) -> None:
    saved: dict[str, str] = {}
    try:
        if (path := directory / PEFT_CONFIG).exists():
            peft = json.loads(path.read_text(encoding="utf-8"))
            saved = {f"trainer.lora.{ours}": _plain(peft.get(theirs)) for theirs, ours in _LORA_FIELDS.items()}
        config = IftConfig.model_validate_json((directory / IFT_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{directory}: cannot be read: {error}") from error
    saved["trainer.components"] = config.components.model_dump_json()
    check_metadata(str(directory), saved, metadata(model, settings))


def check_metadata(where: str, saved: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise ValueError, naming the first field in which two runs differ."""
    for field in sorted(saved.keys() | now.keys()):
        if saved.get(field) != now.get(field):
            raise ValueError(f"{field}: {where} was trained with {saved.get(field)}, this recipe has {now.get(field)}")


def save_optimizer(directory: Path, model: nn.Module, optimizer: Any, scheduler: Any, *, write: bool) -> None:
    """Write the optimiser's and the scheduler's state. All processes must call it; those with ``write`` write."""
    reshard(model)
    names = {id(parameter): name for name, parameter in trainable(model).items()}
    tensors = {}
    for parameter, state in optimizer.state.items():
        for kind, value in state.items():
            tensors[f"{names[id(parameter)]}{_SEPARATOR}{kind}"] = whole(value).cpu().contiguous()
    if write:
        directory.mkdir(parents=True, exist_ok=True)
        save_file(tensors, directory / OPTIMIZER)
        rates = [group["lr"] for group in optimizer.param_groups]
        state = {"rates": rates, "scheduler": scheduler.state_dict()}
        (directory / SCHEDULER).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")


def load_optimizer(directory: Path, model: nn.Module, optimizer: Any, scheduler: Any) -> None:
    """Put back what :func:`save_optimizer` wrote, on one process or on many."""
    reshard(model)
    parameters = trainable(model)
    for key, tensor in load_file(directory / OPTIMIZER).items():
        name, kind = key.rsplit(_SEPARATOR, 1)
        parameter = parameters[name]
        # The count of steps is a number on the CPU; moments have the parameter's shape and place.
        moment = tensor if tensor.ndim == 0 else into(torch.zeros_like(parameter), tensor)
        optimizer.state[parameter][kind] = moment
    state = json.loads((directory / SCHEDULER).read_text(encoding="utf-8"))
    for group, rate in zip(optimizer.param_groups, state["rates"], strict=True):
        group["lr"] = rate
    scheduler.load_state_dict(state["scheduler"])
