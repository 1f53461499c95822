"""Attention with a plain cache of keys and values, for answers of a model in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ift_serve.modeling.components.adaptation import SoloAdaptation
from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.components.tokens import INSTRUCTION, RESPONSE, TokenBatch


class CachedBatch:
    """B sequences, padded on the left; first the prompts are run, then one token of each at a time.

    The batch that a model routed through ``modeling.decoder.attention`` is called with. valid: ``[B, L]`` bool,
    False where padded; segments: ``[B, L]`` uint8; ids: ``[B, L]`` int64.
    """

    def __init__(self, ids: Tensor, segments: Tensor, valid: Tensor, components: InstructionComponents | None) -> None:
        self.rows = ids.shape[0]
        self.valid = valid
        self.instruction = segments == INSTRUCTION
        self.adaptation: SoloAdaptation | None = None
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._sequence = torch.arange(self.rows, device=ids.device)
        if components is not None:
            owner = self._sequence[:, None].expand_as(ids).flatten()
            tokens = TokenBatch(ids.flatten(), segments.flatten(), owner, self.rows)
            self.adaptation = SoloAdaptation(components, tokens)

    @property
    def positions(self) -> Tensor:
        """``[B, L]`` int64, counted from each sequence's first token."""
        return (self.valid.cumsum(1) - 1).clamp(min=0)

    def extend(self, ids: Tensor) -> Tensor:
        """Add one response token to each sequence, ids ``[B]``; returns its positions ``[B, 1]``."""
        one = torch.ones(self.rows, 1, dtype=torch.bool, device=ids.device)
        self.valid = torch.cat((self.valid, one), 1)
        self.instruction = torch.cat((self.instruction, ~one), 1)
        if self.adaptation is not None:
            segments = torch.full((self.rows,), RESPONSE, dtype=torch.uint8, device=ids.device)
            pooled = self.adaptation.tokens.instruction
            self.adaptation.tokens = TokenBatch(ids, segments, self._sequence, self.rows, pooled)
        return self.positions[:, -1:]

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the sequences only; ``rows`` ``[B']`` int64."""
        self.rows = len(rows)
        self.valid, self.instruction = self.valid[rows], self.instruction[rows]
        self._keys = {layer: states[rows] for layer, states in self._keys.items()}
        self._values = {layer: states[rows] for layer, states in self._values.items()}
        self._sequence = self._sequence[: self.rows]
        if self.adaptation is not None and self.adaptation.tokens.instruction is not None:
            self.adaptation.tokens = self.adaptation.tokens.with_instruction(self.adaptation.tokens.instruction[rows])

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int, softcap: float
    ) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.flat_batch.AttentionBatch`."""
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        new = query.shape[0] // self.rows
        keys, values = (
            self._remember(store, layer, states.view(self.rows, new, *states.shape[1:]))
            for store, states in ((self._keys, key), (self._values, value))
        )
        repeats = query.shape[1] // keys.shape[2]
        q = query.view(self.rows, new, *query.shape[1:]).transpose(1, 2).float()
        k, v = (states.transpose(1, 2).float().repeat_interleave(repeats, 1) for states in (keys, values))
        scores = q @ k.transpose(2, 3) * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        scores = self._biased(layer, scores).masked_fill(~self._seen(new, window), torch.finfo(scores.dtype).min)
        output = (scores.softmax(-1) @ v).transpose(1, 2).flatten(0, 1).to(query.dtype)
        return output if self.adaptation is None else self.adaptation.gain(layer, output)

    def _remember(self, store: dict[int, Tensor], layer: int, states: Tensor) -> Tensor:
        store[layer] = torch.cat((store[layer], states), 1) if layer in store else states
        return store[layer]

    def _biased(self, layer: int, scores: Tensor) -> Tensor:
        if self.adaptation is None or self.adaptation.components.attention_bias is None:
            return scores
        components, tokens = self.adaptation.components, self.adaptation.tokens
        strength = components.strength(tokens.instruction, self.rows).to(scores.device)
        bias = strength[:, None] * components.head_bias()[layer][None]
        return scores + bias[:, :, None, None] * self.instruction[:, None, None, :]

    def _seen(self, new: int, window: int) -> Tensor:
        """``[B, 1, new, L]`` bool: which keys each new token sees."""
        columns = torch.arange(self.valid.shape[1], device=self.valid.device)
        rows = columns[-new:, None]
        seen = columns[None] <= rows
        if window:
            seen &= columns[None] > rows - window
        return self.valid[:, None, None, :] & seen[None, None]
