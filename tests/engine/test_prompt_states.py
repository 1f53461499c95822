"""What is computed once of a prompt, and how much of it is remembered."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ift_kernels.gated_add import GateTerms
from ift_serve.engine.adapters import prompt_states
from ift_serve.engine.adapters.prompt_states import PromptStates
from ift_serve.engine.sequences.step import AdaptedPrompt
from ift_serve.modeling.components.config import BaseShape, ComponentsConfig
from ift_serve.modeling.components.instruction_components import InstructionComponents
from ift_serve.modeling.multi_adapter.prepared import GateFactors, PreparedAdapter

SHAPE = BaseShape(hidden_size=32, layers=3, heads=2, vocabulary_size=50)
GATED = ComponentsConfig(instruction_encoder=16, instruction_gate=4)
PROMPTS = [AdaptedPrompt(number, [number, 7, 9], b"\1\1\0") for number in range(5)]


class _Embedding:
    """A decoder as far as prompts need it; counts how often it is asked."""

    def __init__(self) -> None:
        self.table = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
        self.asked = 0

    def embed(self, ids: Tensor) -> Tensor:
        """``[T] -> [T, 32]``."""
        self.asked += 1
        return self.table[ids]


def _adapter(config: ComponentsConfig) -> PreparedAdapter:
    torch.manual_seed(1)
    components = InstructionComponents(config, SHAPE).requires_grad_(False)
    if components.instruction_gate is not None:
        components.instruction_gate.value.normal_()
    return PreparedAdapter([], components=components)


def _states() -> tuple[PromptStates, _Embedding]:
    decoder: Any = _Embedding()
    return PromptStates(decoder, torch.device("cpu")), decoder


def _terms(states: PromptStates, adapter: PreparedAdapter, number: int) -> GateTerms:
    found = states.gate_terms(adapter, PROMPTS[number])
    assert found is not None
    return found


def test_a_gate_gives_its_kernel_a_part_and_computes_of_the_instruction_as_before() -> None:
    gate = _adapter(GATED).components
    assert gate is not None and gate.instruction_gate is not None
    vectors, before = torch.randn(3, 16), gate.instruction_gate.of_instruction
    expected, whole = before(vectors), {name: value.clone() for name, value in gate.instruction_gate.named_parameters()}
    factors = GateFactors.take(gate.instruction_gate)
    found = gate.instruction_gate.of_instruction(vectors)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(found, expected, strict=True))
    assert torch.equal(factors.down, whole["down"][:, :, :32]) and torch.equal(factors.up.mT, whole["up"])
    left = sum(value.numel() for value in gate.instruction_gate.parameters())
    assert left + factors.down.numel() + factors.up.numel() == sum(value.numel() for value in whole.values())


def test_terms_of_a_gate_are_what_the_gate_computes_of_the_instruction() -> None:
    states, _ = _states()
    adapter = _adapter(GATED)
    state = states.of(adapter, PROMPTS[0])
    assert state is not None and adapter.components is not None and adapter.components.instruction_gate is not None
    offset, value = adapter.components.instruction_gate.of_instruction(state.instruction[None])
    terms = _terms(states, adapter, 0)
    assert torch.equal(terms.offset, offset[:, 0]) and torch.equal(terms.value, value[:, 0])
    assert terms.offset.is_contiguous() and terms.value.is_contiguous() and terms.value.shape == (3, 32)


def test_terms_are_kept_up_to_a_size_and_computed_again_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    states, decoder = _states()
    adapter = _adapter(GATED)
    size = 4 * 3 * (4 + 32)
    monkeypatch.setattr(prompt_states, "_GATE_BYTES", 2 * size)
    first = _terms(states, adapter, 0)
    assert _terms(states, adapter, 0) is first
    for number in (1, 2):
        _terms(states, adapter, number)
    again = _terms(states, adapter, 0)
    assert again is not first and torch.equal(again.value, first.value), "the least recently used were forgotten"
    assert _terms(states, adapter, 2) is not None and decoder.asked == 3, "the instruction itself is still known"
    monkeypatch.setattr(prompt_states, "_GATE_BYTES", 0)
    newest = _terms(states, adapter, 3)
    assert _terms(states, adapter, 3) is newest, "the newest is kept whatever its size"


@pytest.mark.parametrize("config", [ComponentsConfig(), ComponentsConfig(instruction_encoder=16)])
def test_an_adapter_without_a_gate_has_no_terms(config: ComponentsConfig) -> None:
    states, _ = _states()
    assert states.gate_terms(_adapter(config), PROMPTS[0]) is None
    assert states.gate_terms(PreparedAdapter([]), PROMPTS[0]) is None
