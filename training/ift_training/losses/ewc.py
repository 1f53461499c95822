"""Elastic weight consolidation: the Fisher information of a previous task, and the penalty it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

_FISHER, _ANCHOR = "fisher.", "anchor."


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


def save_fisher(path: Path, model: nn.Module, fisher: dict[str, Tensor]) -> None:
    """Write the Fisher information and where the parameters are now. Readable by others, like adapters."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {_FISHER + name: value.contiguous() for name, value in fisher.items()}
    tensors |= {_ANCHOR + name: value.detach().float().contiguous() for name, value in trainable(model).items()}
    save_file(tensors, path)
    path.chmod(0o644)


class EwcPenalty:
    """``weight / 2 sum_i F_i (theta_i - theta*_i)^2`` (Kirkpatrick et al. 2017, eq. 3)."""

    def __init__(self, model: nn.Module, path: Path, weight: float) -> None:
        from safetensors.torch import load_file

        found = load_file(path)
        self._parameters = trainable(model)
        wanted = {part + name for part in (_FISHER, _ANCHOR) for name in self._parameters}
        if missing := sorted(wanted - set(found)):
            raise ValueError(f"losses.ewc.fisher: {path} has no {missing[0]}; it was made for another adapter's shape")
        for name, parameter in self._parameters.items():
            if found[_FISHER + name].shape != parameter.shape:
                raise ValueError(f"losses.ewc.fisher: {path}: {name} has another shape than this adapter's")
        self._weight = weight
        self._fisher = {name: found[_FISHER + name] for name in self._parameters}
        self._anchor = {name: found[_ANCHOR + name] for name in self._parameters}

    @property
    def anchor(self) -> dict[str, Tensor]:
        """Where the previous task ended; training of the next one begins there."""
        return self._anchor

    def __call__(self) -> Tensor:
        """The penalty at the current parameters."""
        total = torch.zeros(())
        for name, parameter in self._parameters.items():
            moved = parameter.float() - self._anchor[name].to(parameter.device)
            total = total.to(moved.device) + (self._fisher[name].to(moved.device) * moved.pow(2)).sum()
        return 0.5 * self._weight * total
