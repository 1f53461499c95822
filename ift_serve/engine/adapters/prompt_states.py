"""Prompt states: what adapters compute of a whole prompt, once a request, such as the pooled instruction."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from ift_kernels.gated_add import GateTerms
from ift_serve.engine.sequences.step import AdaptedPrompt
from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.components.tokens import TokenBatch
from ift_serve.modeling.decoder.decoder import Decoder
from ift_serve.modeling.multi_adapter.prepared import PreparedAdapter

_INSTRUCTION = 1
_REMEMBERED = 1024
_GATE_BYTES = 128 << 20
"""Of the terms of gates, which are as large as L hidden states; what is forgotten is computed again from c."""


@dataclass(frozen=True, slots=True)
class PromptState:
    """c ``[d_c]``; the strength of the attention's bias; what T_0 is multiplied with; ``W_c c [width]`` float32 of the
    temperature head, None without one."""

    instruction: Tensor
    strength: float
    initial_temperature: float
    temperature: Tensor | None


class PromptStates:
    """The states of the latest prompts, by the number of their request."""

    def __init__(self, decoder: Decoder, device: torch.device) -> None:
        self._decoder = decoder
        self._device = device
        self._known: OrderedDict[int, PromptState] = OrderedDict()
        self._gates: OrderedDict[int, GateTerms] = OrderedDict()
        self._gate_bytes = 0

    def of(self, adapter: PreparedAdapter, prompt: AdaptedPrompt | None) -> PromptState | None:
        """The state of a prompt with the adapter of its request; None where no instruction encoder is."""
        components = adapter.components
        if components is None or not components.config.instruction_encoder or prompt is None:
            return None
        number = prompt.number
        if number not in self._known:
            self._known[number] = self._state(adapter, components, self.instruction(components, prompt))
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(number)
        return self._known[number]

    def gate_terms(self, adapter: PreparedAdapter, prompt: AdaptedPrompt | None) -> GateTerms | None:
        """What a prompt brings to the gate of its adapter; None where there is no gate."""
        state = self.of(adapter, prompt)
        gate = None if adapter.components is None else adapter.components.instruction_gate
        if state is None or prompt is None or gate is None:
            return None
        number = prompt.number
        if number not in self._gates:
            offset, value = gate.of_instruction(state.instruction[None])
            terms = GateTerms(offset[:, 0].float().contiguous(), value[:, 0].contiguous())
            self._gates[number] = terms
            self._gate_bytes += _bytes(terms)
            while self._gate_bytes > _GATE_BYTES and len(self._gates) > 1:
                self._gate_bytes -= _bytes(self._gates.popitem(last=False)[1])
        self._gates.move_to_end(number)
        return self._gates[number]

    def instruction(self, components: InstructionComponents, prompt: AdaptedPrompt) -> Tensor:
        """c ``[1, d_c]`` of a prompt, by components with an instruction encoder; computed anew."""
        segments = prompt.segment_ids or bytes(len(prompt.token_ids))
        chosen = [i for i, segment in enumerate(segments) if segment == _INSTRUCTION]
        ids = torch.tensor([prompt.token_ids[i] for i in chosen], dtype=torch.int64, device=self._device)
        tokens = TokenBatch(
            input_ids=ids,
            segments=torch.ones(len(ids), dtype=torch.uint8, device=self._device),
            sequence=torch.zeros(len(ids), dtype=torch.int64, device=self._device),
            sequences=1,
        )
        pooled = components.instruction_vector(self._decoder.embed(ids), tokens)
        assert pooled is not None
        return pooled

    def _state(self, adapter: PreparedAdapter, components: InstructionComponents, pooled: Tensor) -> PromptState:
        temperature = None if adapter.temperature is None else adapter.temperature.of_instruction(pooled[0])
        factor = float(components.initial_temperature(pooled)[0])
        return PromptState(pooled[0], float(components.strength(pooled, 1)[0]), factor, temperature)


def _bytes(terms: GateTerms) -> int:
    return terms.offset.nbytes + terms.value.nbytes
