"""Memory estimate of a run, before it starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ift_training.fit import matches
from ift_training.reporting.machine import free_memory

if TYPE_CHECKING:
    from ift_serve.modeling.components.config import ComponentsConfig
    from ift_training.recipe import Recipe
    from ift_training.settings import LoraSettings

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
    if count >= 2**30:
        return f"{count / 2**30:.1f} GiB"
    return f"{count / 2**20:.{0 if count >= 10 * 2**20 else 1}f} MiB"


def estimate(recipe: Recipe, base: Any, longest: int) -> tuple[MemoryEstimate, int]:
    """Of a recipe whose longest example has so many tokens, and the number of trained parameters.

    base: of :func:`ift_training.fit.empty_base`; training holds its weights in float32.
    """
    settings = recipe.trainer
    config = base.config.get_text_config(decoder=True)
    trained = _low_rank(base, settings.lora) + _components(config, settings.components)
    tokens = settings.batch_size * (recipe.max_length if settings.packing else longest)
    tokens *= 2 if settings.losses.instruction else 1
    element = 4 if settings.precision == "float32" else 2
    a_layer = tokens * int(config.hidden_size) * _ACTIVATIONS_A_LAYER * element // 2
    kept = int(config.num_hidden_layers) * a_layer
    if settings.gradient_checkpointing:
        kept = a_layer + int(config.num_hidden_layers) * tokens * int(config.hidden_size) * element
    found = MemoryEstimate(
        weights=4 * trained + sum(p.numel() for p in base.parameters()) * (1 if settings.load_in_4bit else 4),
        gradients=4 * trained,
        optimiser=8 * trained,
        activations=kept,
        logits=_LOGIT_COPIES * 4 * tokens * int(config.vocab_size),
        available=free_memory(),
    )
    return found, trained


def _low_rank(base: Any, settings: LoraSettings) -> int:
    """Parameters of the low-rank part: ``rank (in + out)`` a linear layer, and its length of outputs with DoRA."""
    from torch import nn

    if not settings.rank:
        return 0
    count, head = 0, base.get_output_embeddings()
    for path, module in base.named_modules():
        chosen = module is not head
        if settings.targets != "all-linear":
            chosen = any(path == target or path.endswith(f".{target}") for target in settings.targets)
        if isinstance(module, nn.Linear) and chosen:
            rank = next((r for key, r in settings.rank_pattern.items() if matches(key, path)), settings.rank)
            count += rank * (module.in_features + module.out_features) + module.out_features * settings.dora
    return count


def _components(config: Any, settings: ComponentsConfig) -> int:
    from ift_serve.modeling.checkpoint.meta_device import meta_device
    from ift_serve.modeling.components.config import BaseShape
    from ift_serve.modeling.components.instruction_components import InstructionComponents

    shape = BaseShape(
        hidden_size=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        vocabulary_size=config.vocab_size,
    )
    with meta_device():
        return sum(p.numel() for p in InstructionComponents(settings, shape).parameters())
