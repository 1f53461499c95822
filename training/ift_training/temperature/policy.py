"""A head as the policy that chooses the temperature of every token."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_training.temperature.trajectories import Trajectories


class Policy(Protocol):
    """Chooses temperatures."""

    def log_factors(self, batch: Trajectories) -> Tensor:
        """``log T / T_0`` of every token, ``[n]`` float32."""


class HeadPolicy(nn.Module):
    """The temperature head of an adapter, of either grain. Nothing else of the adapter is trained."""

    def __init__(self, components: InstructionComponents) -> None:
        super().__init__()
        self.components = components
        components.requires_grad_(False)
        for head in (components.temperature_head, components.sequence_temperature):
            if head is not None:
                head.requires_grad_(True)

    def log_factors(self, batch: Trajectories) -> Tensor:
        """See :class:`Policy`."""
        components, places = self.components, batch.token_prompt
        total = torch.zeros(batch.chosen.shape[0])
        has_vector = components.config.instruction_encoder > 0
        if components.temperature_head is not None:
            own = batch.instruction[places] if has_vector else None
            total = total + torch.log(components.temperature(batch.hidden.float(), own, batch.statistics))
        if components.sequence_temperature is not None:
            total = total + torch.log(components.initial_temperature(batch.instruction))[places]
        return total


class ConstantPolicy:
    """One temperature for everything, ``T_0 e^u``; what a head is compared with."""

    def __init__(self, log_factor: float) -> None:
        self._log_factor = log_factor

    def log_factors(self, batch: Trajectories) -> Tensor:
        """See :class:`Policy`."""
        return torch.full(batch.chosen.shape, self._log_factor)
