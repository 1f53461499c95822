"""Predicted temperatures against the head's own forward in float64, and what they promise of rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ift_kernels.row_statistics import RowStatistics, row_statistics
from ift_kernels.temperature_heads import HeadRows, temperature_heads
from ift_serve.modeling.components.heads import TemperatureHead
from tests.support.temperature_heads import table_of, trained_head

BACKENDS = pytest.mark.parametrize("backend", ["cpu", "triton", "reference"])
_SLOTS = [1, 0, 2, 3, 2, 1, 3]


def _statistics(rows: int) -> RowStatistics:
    return row_statistics(torch.randn(rows, 50, generator=torch.Generator().manual_seed(7)) * 2)


def _rows(slots: list[int], instructions: list[Tensor | None] | None = None) -> HeadRows:
    count = len(slots)
    addresses = [0 if c is None else c.data_ptr() for c in (instructions or [None] * count)]
    return HeadRows(
        torch.tensor(slots, dtype=torch.int32),
        torch.tensor(addresses, dtype=torch.int64),
        torch.zeros(count),
        torch.full((count,), 10.0),
    )


def _expected(head: TemperatureHead, hidden: Tensor, c: Tensor | None, statistics: RowStatistics, row: int) -> float:
    """The factor by the module itself, in float64."""
    found = torch.stack((statistics.entropy[row], statistics.p1[row] - statistics.p2[row])).double()
    instruction = None if c is None else c.double()[None]
    return float(head.double()(hidden[row].double()[None], instruction, found[None])[0])


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("width", "hidden_size"), [(5, 24), (64, 48), (33, 301)])
def test_each_row_gets_the_factor_of_its_own_head(
    backend: str, dtype: torch.dtype, width: int, hidden_size: int
) -> None:
    heads = [trained_head(hidden_size, 8 * (seed == 2), width, seed).to(dtype) for seed in (1, 2)]
    table, kept = table_of([*heads, None], dtype)
    hidden = torch.randn(len(_SLOTS), hidden_size, generator=torch.Generator().manual_seed(3)).to(dtype)
    c = torch.randn(8, generator=torch.Generator().manual_seed(4))
    assert heads[1].instruction is not None
    projected = (heads[1].instruction.weight.double() @ c.double()).float()
    statistics, base = _statistics(len(_SLOTS)), torch.linspace(0.3, 1.5, len(_SLOTS))
    rows = _rows(_SLOTS, [projected if slot == 2 else None for slot in _SLOTS])
    found = temperature_heads(hidden, statistics, base, table, rows, backend)
    for row, slot in enumerate(_SLOTS):
        factor = 1.0
        if slot in (1, 2):
            factor = _expected(heads[slot - 1], hidden, c if slot == 2 else None, statistics, row)
        assert float(found[row]) == pytest.approx(float(base[row]) * factor, rel=3e-6), row
    assert kept


@BACKENDS
def test_a_head_of_zeros_changes_no_bit(backend: str) -> None:
    table, kept = table_of([TemperatureHead(40, 0, 16).requires_grad_(False)], torch.float32)
    base = torch.rand(9, generator=torch.Generator().manual_seed(1)) * 2
    hidden = torch.randn(9, 40, generator=torch.Generator().manual_seed(2))
    assert torch.equal(temperature_heads(hidden, _statistics(9), base, table, _rows([1] * 9), backend), base)
    assert kept


@BACKENDS
def test_greedy_stays_greedy_and_bounds_hold(backend: str) -> None:
    table, kept = table_of([trained_head(40, 0, 16, 5)], torch.float32)
    rows = _rows([1] * 6)
    rows.lowest, rows.highest = torch.full((6,), 0.9), torch.full((6,), 0.95)
    base = torch.tensor([0.0, 0.5, 0.9, 1.0, 2.0, 0.0])
    hidden = torch.randn(6, 40, generator=torch.Generator().manual_seed(2)) * 3
    found = temperature_heads(hidden, _statistics(6), base, table, rows, backend)
    assert found[[0, 5]].tolist() == [0.0, 0.0]
    assert ((found[1:5] >= 0.9) & (found[1:5] <= 0.95)).all()
    assert kept


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_the_same_alone_and_in_any_batch(backend: str, dtype: torch.dtype) -> None:
    heads: list[TemperatureHead | None] = [trained_head(96, 0, 24, seed) for seed in (1, 2, 3)]
    table, kept = table_of(heads, dtype)
    hidden = torch.randn(7, 96, generator=torch.Generator().manual_seed(6)).to(dtype)
    statistics, base = _statistics(7), torch.full((7,), 0.7)
    together = temperature_heads(hidden, statistics, base, table, _rows(_SLOTS), backend)
    for row, slot in enumerate(_SLOTS):
        own = RowStatistics(
            statistics.measures[:, row : row + 1].contiguous(), statistics.top_ids, statistics.top_log_probs
        )
        alone = temperature_heads(hidden[row : row + 1], own, base[:1], table, _rows([slot]), backend)
        assert torch.equal(alone, together[row : row + 1])
    assert kept
