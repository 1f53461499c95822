"""Kernels of the invariant backend, in Triton's interpreter: a row has the same bits in any batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ift_kernels.backend import INVARIANT
from ift_kernels.fixed_linear import fixed_linear
from ift_kernels.lora import LoraRows, lora_rows
from ift_kernels.lora_add import lora_add
from ift_kernels.paged_decode import paged_decode
from ift_kernels.paged_prefill import paged_prefill
from tests.kernels.paged_cases import Sequences, make_bias, make_sequences, poisoned_empty
from tests.support.lora import Factors

pytest.importorskip("triton", reason="Triton is there on Linux only")
from triton.runtime.interpreter import InterpreterBuilder

from tests.support.interpreter import ordered_dot

pytestmark = pytest.mark.usefixtures(poisoned_empty.__name__, "ordered_products")

TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.fixture
def ordered_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products whose rows are the same in every place of a tile, as a GPU's are."""
    monkeypatch.setattr(InterpreterBuilder, "create_dot", ordered_dot)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("width", "outputs", "biased"), [(48, 33, True), (200, 70, False), (16, 1, True)])
def test_a_fixed_linear_layer_against_float64(dtype: torch.dtype, width: int, outputs: int, biased: bool) -> None:
    torch.manual_seed(0)
    inputs, weight = torch.randn(70, width).to(dtype), torch.randn(outputs, width).to(dtype)
    bias = torch.randn(outputs).to(dtype) if biased else None
    expected = inputs.double() @ weight.double().T + (0 if bias is None else bias.double())
    for backend in (INVARIANT, "reference"):
        found = fixed_linear(inputs, weight, bias, backend)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, atol=TOLERANCE[dtype] * width**0.5, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", [INVARIANT, "reference"])
def test_rows_of_a_fixed_linear_layer_do_not_meet(dtype: torch.dtype, backend: str) -> None:
    torch.manual_seed(1)
    inputs, weight = torch.randn(70, 150).to(dtype), torch.randn(33, 150).to(dtype)
    together = fixed_linear(inputs, weight, None, backend)
    for part in (slice(0, 1), slice(69, 70), slice(60, 70)):
        assert torch.equal(fixed_linear(inputs[part], weight, None, backend), together[part])
    assert fixed_linear(inputs[:0], weight, None, backend).shape == (0, 33)


def _attend(query: Tensor, cached: Sequences, seen: list[int], chunks: list[int], **options: object) -> Tensor:
    bounds = torch.tensor([0, *chunks]).cumsum(0).int()
    return paged_prefill(
        query,
        cached.key_cache,
        cached.value_cache,
        cached.block_tables,
        bounds,
        torch.tensor(seen, dtype=torch.int32),
        query.shape[2] ** -0.5,
        backend=INVARIANT,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("dtype", "window", "softcap"),
    [(torch.bfloat16, 0, 0.0), (torch.bfloat16, 70, 0.0), (torch.float32, 19, 20.0)],
)
def test_a_token_attends_the_same_in_any_chunk(dtype: torch.dtype, window: int, softcap: float) -> None:
    torch.manual_seed(2)
    lengths = [90 if dtype == torch.bfloat16 else 40, 5]
    first_of_other = lengths[0]
    cached = make_sequences(lengths, 1, 16, 16, dtype)
    query = torch.randn(sum(lengths), 2, 16).to(dtype)
    options = {"window": window, "softcap": softcap}
    whole = _attend(query, cached, lengths, lengths, **options)
    for first, count in ((lengths[0] - 1, 1), (29, 9), (0, 35)):
        end = first + count
        own = torch.cat((query[first:end], query[first_of_other : first_of_other + 1]))
        part = _attend(own, cached, [end, 1], [count, 1], **options)
        assert torch.equal(part[:count], whole[first:end])
        assert torch.equal(part[count:], whole[first_of_other : first_of_other + 1])
    # An adapter's bias beside it chooses another kernel, which gives rows without one the same bits.
    bias = make_bias(cached, 2)
    bias.adapter[:] = torch.tensor([0, 1])
    beside = _attend(query, cached, lengths, lengths, instruction=bias, **options)
    assert torch.equal(beside[:first_of_other], whole[:first_of_other])
    assert not torch.equal(beside[first_of_other:], whole[first_of_other:])


def test_there_is_no_invariant_decode() -> None:
    cached = make_sequences([5], 1, 16, 16, torch.float32)
    row, query = torch.zeros(1, dtype=torch.int32), torch.randn(1, 1, 16)
    with pytest.raises(ValueError, match="paged_prefill"):
        paged_decode(
            query, cached.key_cache, cached.value_cache, cached.block_tables, row, row + 5, 5, 1.0, backend=INVARIANT
        )


def test_low_rank_changes_do_not_depend_on_how_many_there_are() -> None:
    torch.manual_seed(3)
    factors = Factors([8, 5], width=1024, parts=(16,), dtype=torch.float32)
    few = lora_rows(np.array([0, 1, 0], dtype=np.int32), 16)
    # With more than 64 tiles, here of no rows, the plain backend cuts K into fewer slices.
    none = torch.zeros(70, dtype=torch.int32)
    tiles = (torch.cat((part, none)) for part in (few.tile_adapter, few.tile_start, few.tile_count))
    many = LoraRows(few.order, *tiles)
    inputs, base = torch.randn(3, 1024), torch.randn(3, 16)

    def changed(rows: LoraRows, backend: str) -> Tensor:
        output = base.clone()
        lora_add(inputs, factors.table, rows, output, backend=backend)
        return output

    assert torch.equal(changed(few, INVARIANT), changed(many, INVARIANT))
    assert not torch.equal(changed(few, "triton"), changed(many, "triton")), "nothing tells the two backends apart"
