"""How much memory a run will take, before it starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

_ACTIVATIONS_A_LAYER = 34
"""Bytes in half precision per token and hidden unit that a layer keeps for its backward pass
(Korthikanti et al. 2022, "Reducing activation recomputation in large transformer models", equation 1)."""
_LOGIT_COPIES = 3
"""Logits, their float32 softmax and its gradient are alive together."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes. ``available`` is None where it cannot be told."""

    weights: int
    gradients: int
    optimiser: int
    activations: int
    logits: int
    available: int | None

    @property
    def total(self) -> int:
        """All of it, at the peak."""
        return self.weights + self.gradients + self.optimiser + self.activations + self.logits

    @property
    def fits(self) -> bool:
        """Whether there is that much."""
        return self.available is None or self.total <= self.available

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``."""
        return {**asdict(self), "total": self.total, "fits": self.fits}

    def __str__(self) -> str:
        parts = ("weights", "gradients", "optimiser", "activations", "logits")
        listed = ", ".join(f"{part} {mebibytes(getattr(self, part))}" for part in parts)
        free = "" if self.available is None else f" of {mebibytes(self.available)} available"
        return f"memory: about {mebibytes(self.total)}{free} ({listed})"


def mebibytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def estimate(
    model: nn.Module, config: Any, *, tokens: int, activation_bytes: int, gradient_checkpointing: bool
) -> MemoryEstimate:
    """Of a model with its adapter attached, for ``tokens`` in one forward pass; AdamW keeps two float32 a parameter."""
    trained = [p for p in model.parameters() if p.requires_grad]
    hidden, layers = int(config.hidden_size), int(config.num_hidden_layers)
    a_layer = tokens * hidden * _ACTIVATIONS_A_LAYER * activation_bytes // 2
    kept = a_layer + layers * tokens * hidden * activation_bytes if gradient_checkpointing else layers * a_layer
    return MemoryEstimate(
        weights=sum(p.numel() * p.element_size() for p in model.parameters()),
        gradients=sum(p.numel() * p.element_size() for p in trained),
        optimiser=sum(8 * p.numel() for p in trained),
        activations=kept,
        logits=_LOGIT_COPIES * 4 * tokens * int(config.vocab_size),
        available=_available(model),
    )


def _available(model: nn.Module) -> int | None:
    """Free memory of the model's device."""
    import torch

    device = next(model.parameters()).device
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    from ift_training.reporting.machine import free_memory

    return free_memory()
