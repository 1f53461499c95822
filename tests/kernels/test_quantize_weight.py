"""Weights rounded to 8 and 4 bits: what they stand for, and the compiled rounding against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ift_kernels.quantize_weight import quantize_weight
from ift_kernels.quantized_linear import QuantizedWeight, runs_here

BITS = pytest.mark.parametrize("bits", [8, 4])
COMPILED = pytest.mark.skipif(not runs_here(), reason="needs AVX2")


def _assert_same(found: QuantizedWeight | None, defined: QuantizedWeight | None) -> None:
    assert found is not None and defined is not None
    assert found.bits == defined.bits and found.shape == defined.shape
    assert torch.equal(found.panels, defined.panels) and found.panels.dtype == defined.panels.dtype
    assert torch.equal(found.scales, defined.scales)
    assert (found.minimums is None) == (defined.minimums is None)
    if found.minimums is not None and defined.minimums is not None:
        assert torch.equal(found.minimums, defined.minimums)


def _awkward(outputs: int, inputs: int) -> Tensor:
    """Groups of zeros, of one value, of one sign, of subnormals, of the largest and of halves between two steps."""
    weight = torch.randn(outputs, inputs)
    groups = weight.view(outputs, -1, 32)
    groups[0, 0] = 0.0
    groups[1, 0] = 0.25
    groups[2, 0] = -groups[2, 0].abs()
    groups[3, 0] *= 1e-9
    groups[4, 0] *= 1e-41
    groups[5, 0, 3], groups[5, 0, 4] = 65504.0, -65504.0
    groups[6, 0] = torch.arange(32) / 2
    groups[7, 0] = torch.arange(32) - 15.5
    groups[8, 0] = -0.0
    groups[9, 0, :] = 3e-6
    return weight


@COMPILED
@BITS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 32), (48, 96), (320, 64), (16, 1024)])
def test_it_rounds_as_its_definition(outputs: int, inputs: int, dtype: torch.dtype, bits: int) -> None:
    torch.manual_seed(outputs)
    weight = _awkward(outputs, inputs).clamp(-65504, 65504)
    weight = weight.to(dtype) if dtype == torch.float32 else weight.clamp(-65280, 65280).to(dtype)
    kept = weight.clone()
    defined = quantize_weight(weight, bits, "reference")
    _assert_same(quantize_weight(weight, bits, "cpu"), defined)
    assert torch.equal(weight, kept) and defined is not None
    _assert_same(quantize_weight(weight, bits, "cpu", in_place=True), defined)
    assert torch.equal(weight, defined.dense().to(dtype))
    turned = kept.t().contiguous().t()
    _assert_same(quantize_weight(turned, bits, "cpu", in_place=True), defined)
    assert torch.equal(turned, weight)


@BITS
@pytest.mark.parametrize("backend", [pytest.param("cpu", marks=COMPILED), "reference"])
def test_in_place_of_what_cannot_be_rounded_nothing_changes(backend: str, bits: int) -> None:
    for odd in (1e6, -70000.0, float("nan"), float("inf"), -float("inf")):
        for place in ((0, 0), (319, 63), (17, 40)):
            weight = torch.randn(320, 64)
            weight[place] = odd
            before = weight.clone()
            assert quantize_weight(weight, bits, backend, in_place=True) is None
            torch.testing.assert_close(weight, before, atol=0, rtol=0, equal_nan=True)


def test_eight_bits_are_within_half_a_step_and_four_within_half_of_theirs() -> None:
    weight = torch.randn(48, 128)
    for bits, steps in ((8, 127.0), (4, 15.0)):
        packed = quantize_weight(weight, bits)
        assert packed is not None and packed.shape == (48, 128)
        groups = weight.view(48, -1, 32)
        low, high = groups.aminmax(dim=-1, keepdim=True)
        step = (torch.maximum(-low, high) if bits == 8 else high - low) / steps
        error = (packed.dense().view_as(groups) - groups).abs()
        # A scale kept in float16 moves the ends by a thousandth of the range.
        assert (error <= 0.5 * step + 2e-3 * (high - low)).all()


@BITS
def test_what_a_packed_weight_stands_for_is_packed_as_itself(bits: int) -> None:
    packed = quantize_weight(torch.randn(32, 96) / 96**0.5, bits)
    assert packed is not None
    again = quantize_weight(packed.dense(), bits)
    assert again is not None
    torch.testing.assert_close(again.dense(), packed.dense(), atol=2e-4, rtol=1e-3)


def test_what_fits_no_panel_or_no_group_or_no_half_is_not_packed() -> None:
    def fits(weight: Tensor, bits: int) -> bool:
        return quantize_weight(weight, bits) is not None

    for bits in (8, 4):
        assert not fits(torch.ones(24, 64), bits) and not fits(torch.ones(16, 48), bits)
        for odd in (1e6, float("nan"), float("inf")):
            weight = torch.ones(16, 64)
            weight[3, 5] = odd
            assert not fits(weight, bits)
