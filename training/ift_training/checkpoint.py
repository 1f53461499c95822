"""What a run is continued from: the tensors that are trained and the optimiser's, whole whether sharded or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ift_serve.modeling.adapters.config import IFT_WEIGHTS, PEFT_WEIGHTS
from ift_training.losses.ewc import trainable
from ift_training.model.instruction_model import InstructionModel
from ift_training.model.sharding import into, reshard, whole

TRAINING_STATE = "training_state.safetensors"
"""What is trained but is no part of the adapter: weights of tasks, the projection of the representation loss."""
OPTIMIZER, SCHEDULER = "optimizer.safetensors", "scheduler.json"
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


def read(model: InstructionModel, directory: Path) -> dict[str, Tensor]:
    """The trained tensors that a directory holds, by parameter name. Raises ValueError when the adapter's miss one."""
    files = {name: load_file(directory / name) for name in (PEFT_WEIGHTS, IFT_WEIGHTS, TRAINING_STATE)
             if (directory / name).exists()}  # fmt: skip
    found = {}
    for name, (file, key) in file_of(model).items():
        if key in files.get(file, {}):
            found[name] = files[file][key]
        elif file != TRAINING_STATE:
            raise ValueError(f"{directory / file}: has no {key}; it was trained with other `lora` or `components`")
    return found


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
