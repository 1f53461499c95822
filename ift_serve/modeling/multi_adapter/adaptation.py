"""Mixed adaptation: the adapters of a flat batch change hidden states, each those of its own rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import embedding

from ift_kernels.gated_add import GateGroup, Gates, GateTerms, gated_add
from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.components.tokens import TokenBatch
from ift_serve.modeling.multi_adapter.prepared import PreparedAdapter


@dataclass(slots=True)
class AdapterGroup:
    """The rows of one adapter: ``rows`` ``[n]`` int64, None where they are all; ``tokens`` describes just these.

    gate_terms: what each of the ``tokens.sequences`` brings to the adapter's gate; empty where it has none.
    """

    adapter: PreparedAdapter
    rows: Tensor | None
    tokens: TokenBatch
    gate_terms: list[GateTerms] = field(default_factory=list)


Change = Callable[[AdapterGroup, Tensor], Tensor]


def _own_embeddings(adapter: PreparedAdapter, ids: Tensor, embeddings: Tensor) -> Tensor:
    """Token embeddings as the adapter has them, before its components."""
    if adapter.embedding_table is not None:
        embeddings = embedding(ids, adapter.embedding_table)
    if adapter.token_ids is not None and adapter.token_rows is not None:
        place = torch.searchsorted(adapter.token_ids, ids).clamp_max(len(adapter.token_ids) - 1)
        own = adapter.token_ids[place] == ids
        embeddings = torch.where(own[:, None], adapter.token_rows[place], embeddings)
    if (factors := adapter.embedding) is not None:
        embeddings = embeddings + factors.scale * (embedding(ids, factors.a) @ factors.b)
    if adapter.embedding_ratio is not None:
        embeddings = adapter.embedding_ratio * embeddings
    return embeddings


def _gates(groups: list[AdapterGroup]) -> Gates | None:
    found = [
        GateGroup(gate.down, gate.up, group.rows, group.tokens.sequence, group.gate_terms)
        for group in groups
        if (gate := group.adapter.gate) is not None
    ]
    return Gates(found) if found else None


class MixedAdaptation:
    """The :class:`ift_serve.modeling.decoder.flat_batch.Adaptation` of a batch with any number of adapters."""

    def __init__(self, groups: list[AdapterGroup], backend: str) -> None:
        self._groups = groups
        self._backend = backend
        modules = [(g, g.adapter.components) for g in groups if g.adapter.components is not None]
        self._gains = [(g, c) for g, c in modules if c.config.attention_gain and g.tokens.has_instruction]
        self._gates = _gates(groups)
        self._pathways = [(g, c) for g, c in modules if c.config.reasoning_pathways]

    @property
    def changes_layers(self) -> bool:
        """Whether ``after_layer`` does anything."""
        return self._gates is not None

    def embed(self, embeddings: Tensor) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.flat_batch.Adaptation`."""

        def change(group: AdapterGroup, states: Tensor) -> Tensor:
            adapter = group.adapter
            if adapter.changes_embeddings:
                states = _own_embeddings(adapter, group.tokens.input_ids, states)
            return states if adapter.components is None else adapter.components.embed(states, group.tokens)

        return _apply([(g, change) for g in self._groups], embeddings)

    def gain(self, layer: int, attended: Tensor) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.flat_batch.Adaptation`."""
        return _apply([(g, _gain(c, layer)) for g, c in self._gains], attended)

    def after_layer(self, layer: int, hidden: Tensor, delta: Tensor | None = None) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.flat_batch.Adaptation`."""
        if self._gates is None:
            return hidden if delta is None else hidden + delta
        if delta is None:
            hidden = hidden.clone()  # the layer's own output, which others may look at
        gated_add(hidden, delta, layer, self._gates, self._backend)
        return hidden

    def before_head(self, hidden: Tensor) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.flat_batch.Adaptation`."""
        return _apply([(g, _pathways(c)) for g, c in self._pathways], hidden)


def _gain(components: InstructionComponents, layer: int) -> Change:
    return lambda group, states: components.gain(layer, states, group.tokens)


def _pathways(components: InstructionComponents) -> Change:
    return lambda group, states: components.before_head(states, group.tokens)


def _apply(changes: list[tuple[AdapterGroup, Change]], states: Tensor) -> Tensor:
    """Each group's rows changed, the others as they are."""
    if len(changes) == 1 and changes[0][0].rows is None:
        group, change = changes[0]
        return change(group, states)
    result = states
    for group, change in changes:
        if result is states:
            result = states.clone()
        assert group.rows is not None
        result[group.rows] = change(group, states[group.rows]).to(states.dtype)
    return result
