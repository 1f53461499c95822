"""The gated addition against float64, and its independence of the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ift_kernels.gated_add import GateGroup, Gates, GateTerms, gated_add

TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1.6e-2}
BACKENDS = ["cpu", "reference"]
WIDTH, LAYERS = 112, 3
"""One group of 64 columns, and three of 16."""


def _terms(count: int, rank: int, dtype: torch.dtype) -> list[GateTerms]:
    return [GateTerms(torch.randn(LAYERS, rank), torch.randn(LAYERS, WIDTH).to(dtype)) for _ in range(count)]


def _group(rank: int, rows: list[int] | None, sequence: list[int], dtype: torch.dtype) -> GateGroup:
    return GateGroup(
        down=(torch.randn(LAYERS, rank, WIDTH) / WIDTH**0.5).to(dtype),
        up=(torch.randn(LAYERS, rank, WIDTH) / rank**0.5).to(dtype),
        rows=None if rows is None else torch.tensor(rows),
        sequence=torch.tensor(sequence),
        terms=_terms(max(sequence) + 1, rank, dtype),
    )


def _expected(hidden: Tensor, delta: Tensor | None, layer: int, gates: Gates) -> Tensor:
    """Row by row in float64, from hidden states to which delta was added in their own dtype."""
    states = hidden if delta is None else hidden + delta
    result = states.double()
    for group in gates.groups:
        rows = range(len(hidden)) if group.rows is None else group.rows.tolist()
        for row, sequence in zip(rows, group.sequence.tolist(), strict=True):
            terms = group.terms[sequence]
            narrow = group.down[layer].double() @ states[row].double() + terms.offset[layer].double()
            result[row] += torch.sigmoid(narrow @ group.up[layer].double()) * terms.value[layer].double()
    return result


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("added", [True, False])
def test_every_row_goes_through_its_own_gate(dtype: torch.dtype, added: bool, backend: str) -> None:
    torch.manual_seed(0)
    gates = Gates([_group(5, [0, 4, 2, 7], [1, 0, 1, 2], dtype), _group(16, [8, 3], [0, 1], dtype)])
    hidden = torch.randn(9, WIDTH).to(dtype)
    delta = torch.randn(9, WIDTH).to(dtype) if added else None
    for layer in (2, 0):
        got = hidden.clone()
        gated_add(got, delta, layer, gates, backend)
        expected = _expected(hidden, delta, layer, gates)
        torch.testing.assert_close(got.double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
        others = [1, 5, 6]
        assert torch.equal(got[others], hidden[others] if delta is None else (hidden + delta)[others])


@pytest.mark.parametrize("rows", [1, 3, 150])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_gate_of_all_rows_on_one_thread_and_on_several(dtype: torch.dtype, rows: int) -> None:
    torch.manual_seed(1)
    gates = Gates([_group(16, None, [row // 7 for row in range(rows)], dtype)])
    hidden, delta = torch.randn(rows, WIDTH).to(dtype), torch.randn(rows, WIDTH).to(dtype)
    got = hidden.clone()
    gated_add(got, delta, 1, gates, "cpu")
    expected = _expected(hidden, delta, 1, gates)
    torch.testing.assert_close(got.double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    for row in range(0, rows, 49):
        own = gates.groups[0]
        one = GateGroup(own.down, own.up, None, torch.zeros(1, dtype=torch.int64), [own.terms[row // 7]])
        alone = hidden[row : row + 1].clone()
        gated_add(alone, delta[row : row + 1], 1, Gates([one]), "cpu")
        assert torch.equal(alone[0], got[row])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_fresh_gate_changes_nothing_bit_for_bit(dtype: torch.dtype, backend: str) -> None:
    torch.manual_seed(2)
    group = _group(16, None, [0] * 4, dtype)
    group.terms = [GateTerms(group.terms[0].offset, torch.zeros(LAYERS, WIDTH, dtype=dtype))]
    hidden, delta = torch.randn(4, WIDTH).to(dtype), torch.randn(4, WIDTH).to(dtype)
    got = hidden.clone()
    gated_add(got, delta, 0, Gates([group]), backend)
    assert torch.equal(got, hidden + delta)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gate_that_is_shut_or_open_all_the_way_stays_finite(backend: str) -> None:
    group = _group(1, None, [0, 1], torch.float32)
    group.down.zero_()
    group.up.fill_(1.0)
    value = torch.ones(LAYERS, WIDTH)
    group.terms = [GateTerms(torch.full((LAYERS, 1), size), value) for size in (-1e4, 1e4)]
    hidden = torch.zeros(2, WIDTH)
    gated_add(hidden, None, 0, Gates([group]), backend)
    torch.testing.assert_close(hidden, torch.tensor([[0.0], [1.0]]).expand(2, WIDTH), atol=1e-30, rtol=0)


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 20), (torch.float16, 32)])
def test_shapes_and_dtypes_without_a_kernel_take_the_definition(dtype: torch.dtype, width: int) -> None:
    torch.manual_seed(3)
    down, up = torch.randn(1, 2, width).to(dtype), torch.randn(1, 2, width).to(dtype)
    terms = [GateTerms(torch.randn(1, 2), torch.randn(1, width).to(dtype))]
    gates: Any = Gates([GateGroup(down, up, None, torch.zeros(2, dtype=torch.int64), terms)])
    hidden = torch.randn(2, width).to(dtype)
    got, expected = hidden.clone(), hidden.clone()
    gated_add(got, None, 0, gates)
    gated_add(expected, None, 0, gates, "reference")
    assert torch.equal(got, expected)
