"""Linear layers over 8- and 4-bit weights against their definition, and their independence of the batch."""

from __future__ import annotations

import pytest
import torch

from ift_kernels.quantize_weight import quantize_weight
from ift_kernels.quantized_linear import (
    QuantizedWeight,
    pack_codes,
    quantized_linear,
    round_inputs,
    runs_here,
    stack_weights,
)

SHAPES = [(64, 64), (80, 96), (16, 32), (192, 576)]
"""Outputs in whole groups of four panels, with a rest, and less than a group; inputs of one group and of many."""

BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(not runs_here(), reason="needs AVX2"))]


def _packed(outputs: int, inputs: int, bits: int) -> QuantizedWeight:
    packed = quantize_weight(torch.randn(outputs, inputs) / inputs**0.5, bits)
    assert packed is not None
    return packed


def _symmetric(outputs: int, inputs: int) -> QuantizedWeight:
    """Four bits without minimums, as some files have them."""
    codes = torch.randint(0, 16, (outputs, inputs), dtype=torch.uint8)
    return pack_codes(codes, torch.rand(outputs, inputs // 32) - 0.5, None, 4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9, 33])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_it_is_the_product_of_the_rounded_inputs(
    outputs: int, inputs: int, rows: int, bits: int, dtype: torch.dtype, backend: str
) -> None:
    torch.manual_seed(outputs + rows)
    weights = [_packed(outputs, inputs, bits), *([_symmetric(outputs, inputs)] if bits == 4 else [])]
    x = torch.randn(rows, inputs).to(dtype)
    for weight in weights:
        for bias in (None, torch.randn(outputs)):
            exact = round_inputs(x).double() @ weight.dense().double().T + (0 if bias is None else bias.double())
            found = quantized_linear(x, weight, bias, backend)
            assert found.dtype == dtype and found.is_contiguous()
            tolerance = 2e-5 if dtype == torch.float32 else 2e-2
            torch.testing.assert_close(found.double(), exact, atol=tolerance, rtol=tolerance)


@pytest.mark.skipif(not runs_here(), reason="needs AVX2")
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_a_row_is_the_same_alone_and_in_any_batch(outputs: int, inputs: int, bits: int) -> None:
    torch.manual_seed(1)
    weight, x = _packed(outputs, inputs, bits), torch.randn(11, inputs)
    together = quantized_linear(x, weight)
    for row in range(11):
        assert torch.equal(quantized_linear(x[row : row + 1].contiguous(), weight)[0], together[row])
    assert torch.equal(quantized_linear(x[3:9].contiguous(), weight), together[3:9])


@pytest.mark.skipif(not runs_here(), reason="needs AVX2")
@pytest.mark.parametrize("bits", [8, 4])
def test_the_largest_codes_and_inputs_do_not_overflow(bits: int) -> None:
    extreme = torch.full((16, 64), 127 if bits == 8 else 15, dtype=torch.int8 if bits == 8 else torch.uint8)
    weight = pack_codes(extreme, torch.ones(16, 2), torch.zeros(16, 2) if bits == 4 else None, bits)
    for x in (torch.ones(1, 64), -torch.ones(5, 64)):
        torch.testing.assert_close(quantized_linear(x, weight), x @ weight.dense().T)


@pytest.mark.skipif(not runs_here(), reason="needs AVX2")
def test_the_smallest_code_of_eight_bits_is_held() -> None:
    """Codes of -128 do not come from rounding here, but files may hold them."""
    weight = pack_codes(torch.full((16, 32), -128, dtype=torch.int8), torch.ones(16, 1), None, 8)
    x = torch.cat((torch.ones(1, 32), -torch.ones(1, 32), torch.randn(3, 32)))
    expected = round_inputs(x) @ weight.dense().T
    torch.testing.assert_close(quantized_linear(x, weight), expected, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so_in_its_row_alone(bits: int, odd: float, backend: str) -> None:
    weight, x = _packed(32, 64, bits), torch.randn(3, 64)
    x[1, 5] = odd
    found = quantized_linear(x, weight, None, backend)
    assert not torch.isfinite(found[1]).any() and torch.isfinite(found[[0, 2]]).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bits", [8, 4])
def test_inputs_of_nothing_and_of_next_to_nothing_are_zero(bits: int, backend: str) -> None:
    weight = _packed(32, 64, bits)
    for x in (torch.zeros(2, 64), torch.full((5, 64), 1e-38)):
        assert torch.equal(quantized_linear(x, weight, None, backend), torch.zeros(len(x), 32))


@pytest.mark.parametrize("bits", [8, 4])
def test_rows_are_those_of_the_whole(bits: int) -> None:
    packed = _packed(64, 96, bits)
    ids = torch.tensor([5, 0, 63, 5])
    assert torch.equal(packed.rows(ids), packed.dense()[ids])


@pytest.mark.parametrize("bits", [8, 4])
def test_stacked_weights_are_those_one_after_the_other(bits: int) -> None:
    parts = [_packed(32, 64, bits), _packed(16, 64, bits)]
    stacked = stack_weights(parts)
    assert stacked is not None and torch.equal(stacked.dense(), torch.cat([part.dense() for part in parts]))
    assert stack_weights([parts[0], _packed(16, 64, 12 - bits)]) is None
