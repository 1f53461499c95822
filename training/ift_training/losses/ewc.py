"""Elastic weight consolidation: the Fisher information of a previous task, and the penalty it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ift_training.model.sharding import into, local

_FISHER, _ANCHOR = "fisher.", "anchor."
_NOT_IN_ADAPTER = ("balance.", "projection.")
"""Parameters that serve one training only; the next task has its own."""


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def fisher_information(
    model: nn.Module, losses: Iterable[Callable[[], Tensor]], progress: Callable[[], None] = lambda: None
) -> dict[str, Tensor]:
    """Diagonal of the empirical Fisher matrix: the mean of squared gradients of single examples.

    losses: one function an example, its negative log-likelihood. The square of a batch's mean gradient would be
    smaller by the spread of its examples, and is not what the penalty is derived from.
    """
    parameters = trainable(model)
    totals = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    count = 0
    for loss in losses:
        gradients = torch.autograd.grad(loss(), list(parameters.values()), allow_unused=True)
        for name, gradient in zip(totals, gradients, strict=True):
            if gradient is not None:
                totals[name] += gradient.detach().float().pow(2)
        count += 1
        progress()
    return {name: total / max(count, 1) for name, total in totals.items()}


def save_fisher(
    path: Path, model: nn.Module, fisher: dict[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write the Fisher information and where the parameters are now. Readable by others, like adapters.

    metadata: what must be the same where it is used, by field of a recipe.
    """
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {_FISHER + name: value.contiguous() for name, value in fisher.items()}
    tensors |= {_ANCHOR + name: value.detach().float().contiguous() for name, value in trainable(model).items()}
    save_file(tensors, path, metadata=dict(metadata or {}))
    path.chmod(0o644)


class EwcPenalty:
    """``weight / 2 sum_i F_i (theta_i - theta*_i)^2`` (Kirkpatrick et al. 2017, eq. 3).

    ``anchor`` is theta*, full tensors by parameter name: where the previous task ended and this one has to begin.
    Raises ValueError when the file is not of an adapter of the model's shape, or of other ``metadata``.
    """

    def __init__(self, model: nn.Module, path: Path, weight: float, metadata: Mapping[str, str] | None = None) -> None:
        found, saved = _load(path)
        for field, here in sorted((metadata or {}).items()):
            if saved.get(field, here) != here:
                raise ValueError(f"losses.ewc.fisher: {path} was made with {field} {saved[field]}, here it is {here}")
        wanted = {n: p for n, p in trainable(model).items() if not n.startswith(_NOT_IN_ADAPTER)}
        _check(path, found, wanted)
        self._weight = weight
        self._fisher = {name: found[_FISHER + name] for name in wanted}
        self.anchor = {name: found[_ANCHOR + name] for name in wanted}
        self._parts: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The penalty at the parameters given by name; of sharded ones, this process's share of it."""
        total = torch.zeros(())
        for name, fisher in self._fisher.items():
            parameter = parameters[name]
            if name not in self._parts:
                self._parts[name] = (_like(parameter, fisher), _like(parameter, self.anchor[name]))
            importance, anchor = self._parts[name]
            moved = local(parameter).float() - anchor
            total = total.to(moved.device) + (importance * moved.pow(2)).sum()
        return 0.5 * self._weight * total


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, and the metadata that stand beside them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"losses.ewc.fisher: {path} cannot be read: {error}") from error


def _check(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Everything the adapter trains is in the file, in the same shape, and the file has nothing that it lacks."""
    shown = f"losses.ewc.fisher: {path}"
    expected = {part + name: parameter for part in (_FISHER, _ANCHOR) for name, parameter in wanted.items()}
    for key, parameter in expected.items():
        if key not in found:
            raise ValueError(f"{shown} has no {key}; use the lora and components that it was made with")
        if found[key].shape != parameter.shape:
            raise ValueError(
                f"{shown}: {key} is {tuple(found[key].shape)}, here {tuple(parameter.shape)}; "
                "use the lora and components that it was made with"
            )
    for key in found:
        name = key.removeprefix(_FISHER).removeprefix(_ANCHOR)
        if key not in expected and not name.startswith(_NOT_IN_ADAPTER):
            raise ValueError(f"{shown} has {key}, which is not trained here; use the lora and components of that task")


def _like(parameter: Tensor, full: Tensor) -> Tensor:
    """The part of a full float32 tensor that belongs to this process's part of a parameter."""
    return local(into(torch.zeros_like(parameter, dtype=torch.float32), full)).detach()
