"""What the adapters of a flat batch do to hidden states, each to its own rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding

from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.components.states import InstructionGate
from ift_serve.modeling.components.tokens import TokenBatch
from ift_serve.modeling.multi_adapter.prepared import PreparedAdapter


@dataclass(slots=True)
class AdapterGroup:
    """The rows of one adapter: ``rows`` ``[n]`` int64, None where they are all; ``tokens`` describes just these.

    one_token_each: whether the rows are one token of each sequence, in the order of the sequences.
    """

    adapter: PreparedAdapter
    rows: Tensor | None
    tokens: TokenBatch
    one_token_each: bool = False


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


class _Gate:
    """An adapter's gate with what depends on the instruction alone, computed once for all layers of a pass."""

    def __init__(self, gate: InstructionGate, group: AdapterGroup) -> None:
        instruction = group.tokens.instruction
        assert instruction is not None, "the instruction vectors were not computed"
        self._gate = gate
        self._sequence = None if group.one_token_each else group.tokens.sequence
        down, value = gate.of_instruction(instruction)
        self._down, self._value = down.unbind(), value.unbind()

    def of_layer(self, layer: int) -> Change:
        """What it does after one layer."""
        down, value = self._down[layer], self._value[layer]
        return lambda _, states: self._gate.change(layer, states, down, value, self._sequence)


class MixedAdaptation:
    """The :class:`ift_serve.modeling.decoder.flat_batch.Adaptation` of a batch with any number of adapters."""

    def __init__(self, groups: list[AdapterGroup]) -> None:
        self._groups = groups
        modules = [(g, g.adapter.components) for g in groups if g.adapter.components is not None]
        self._gains = [(g, c) for g, c in modules if c.config.attention_gain and g.tokens.has_instruction]
        self._gates = [(g, _Gate(c.instruction_gate, g)) for g, c in modules if c.instruction_gate is not None]
        self._pathways = [(g, c) for g, c in modules if c.config.reasoning_pathways]

    @property
    def changes_layers(self) -> bool:
        """Whether ``after_layer`` does anything."""
        return bool(self._gates)

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

    def after_layer(self, layer: int, hidden: Tensor) -> Tensor:
        """See :class:`ift_serve.modeling.decoder.flat_batch.Adaptation`."""
        return _apply([(g, gate.of_layer(layer)) for g, gate in self._gates], hidden)

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
