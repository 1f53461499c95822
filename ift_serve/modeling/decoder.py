"""One way to run a model: flat batch in, hidden states out, logits for the rows that need them."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from ift_serve.modeling.batch import FlatBatch
from ift_serve.modeling.linear import pack_linears
from ift_serve.modeling.loading import LoadedModel


class Decoder(Protocol):
    """The compute of a model, whatever its implementation."""

    name: str

    def forward(self, batch: FlatBatch, rows: Tensor | None) -> Tensor:
        """Hidden states after the last normalisation; keys and values go into the cache.

        rows: ``[R]`` int64 indices of the tokens that are asked for, or None for all -> ``[R, d]``.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """``[R, d]`` -> ``[R, V]``, as the model's own head computes them."""


class RoutedDecoder:
    """The transformers model as it is, with attention routed into the flat batch."""

    name = "routed"

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._backbone: nn.Module = model.base_model  # type: ignore[assignment]

    def forward(self, batch: FlatBatch, rows: Tensor | None) -> Tensor:
        """See :class:`Decoder`."""
        output = self._backbone(
            input_ids=batch.input_ids[None], position_ids=batch.positions.long()[None], use_cache=False, batch=batch
        )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden if rows is None else hidden[rows]

    def logits(self, hidden: Tensor) -> Tensor:
        """See :class:`Decoder`. Scaling and soft-capping of logits follow the model's configuration."""
        head = self._model.get_output_embeddings()  # type: ignore[operator]
        logits: Tensor = head(hidden)
        config = self._model.config.get_text_config(decoder=True)  # type: ignore[union-attr,operator]
        if scale := getattr(config, "logits_scaling", None):
            logits = logits / scale
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        return logits


def make_decoder(loaded: LoadedModel, *, use_kernels: bool = True) -> Decoder:
    """The fastest decoder that computes this model."""
    from ift_serve.modeling.fused import FusedDecoder, can_fuse

    if use_kernels:
        if can_fuse(loaded):
            return FusedDecoder(loaded)
        pack_linears(loaded.model)
    return RoutedDecoder(loaded.model)
