"""The base model as the engine computes it, for features of answers that are known: no cache, no head trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.components.tokens import TokenBatch
from ift_serve.modeling.decoder.hooks import attach, backbone_of
from ift_serve.modeling.decoder.model_loader import load_model
from ift_serve.modeling.decoder.tail import ModelTail
from ift_training.model.batch import TrainingBatch, visible_pairs

_ROWS = 16
"""Sequences of one forward pass."""


class FrozenModel:
    """A base model in the dtype that serving chooses."""

    def __init__(self, directory: str, device: str = "cpu") -> None:
        """Raises UnsupportedModelError."""
        self._loaded = load_model(directory, device=device)
        self.metadata = BaseMetadata.of_directory(Path(directory))
        self.dtype = self._loaded.dtype
        self.ends = self._loaded.eos_ids
        self._model = self._loaded.model
        self._device = torch.device(device)
        attach(self._model)
        self._tail = ModelTail(self._model)

    @torch.no_grad()
    def hidden_states(self, sequences: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """``[length, d]`` of each sequence, before the head, in order."""
        for start in range(0, len(sequences), _ROWS):
            rows = sequences[start : start + _ROWS]
            longest = max(len(row) for row in rows)
            ids = torch.zeros(len(rows), longest, dtype=torch.int64)
            document = torch.zeros_like(ids)
            for index, row in enumerate(rows):
                ids[index, : len(row)] = torch.tensor(row)
                document[index, len(row) :] = 1  # what is padded sees itself only
            positions = torch.arange(longest)[None].expand(len(rows), -1)
            batch = TrainingBatch(visible_pairs(document.to(self._device)))
            output = backbone_of(self._model)(
                input_ids=ids.to(self._device), position_ids=positions.to(self._device), use_cache=False, batch=batch
            )
            for index, row in enumerate(rows):
                yield output.last_hidden_state[index, : len(row)]

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Raw logits ``[n, V]`` float32 of hidden states ``[n, d]``."""
        return self._tail.logits(hidden).float()

    @torch.no_grad()
    def instruction_vector(self, components: InstructionComponents, token_ids: list[int], segments: bytes) -> Tensor:
        """c ``[1, d_c]`` float32 of a prompt, in the dtype that serving computes it in; no columns without encoder."""
        if components.instruction_encoder is None:
            return torch.zeros(1, 0)
        encoder = copy.deepcopy(components.instruction_encoder).to(device=self._device, dtype=self.dtype)
        ids = torch.tensor(token_ids, device=self._device)
        marks = torch.frombuffer(bytearray(segments), dtype=torch.uint8).to(self._device)
        tokens = TokenBatch(ids, marks, torch.zeros_like(ids), 1)
        pooled: Tensor = encoder(self._model.get_input_embeddings()(ids), tokens)  # type: ignore[operator]
        return pooled.float().cpu()
