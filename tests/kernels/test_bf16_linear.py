"""Linear layers over bf16 weights against float64, and their independence of the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ift_kernels.bf16_linear import bf16_linear, pack_weight

SHAPES = [(64, 16), (80, 48), (16, 96), (192, 144)]
"""Outputs in whole groups of four panels, with a rest, and less than a group."""


def _weight(outputs: int, inputs: int) -> Tensor:
    weight: Tensor = torch.randn(outputs, inputs) / inputs**0.5
    return weight.bfloat16().float()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 9, 33, 50])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_it_is_the_product_in_float32(outputs: int, inputs: int, rows: int, backend: str) -> None:
    torch.manual_seed(outputs + rows)
    weight, x = _weight(outputs, inputs), torch.randn(rows, inputs)
    packed = pack_weight(weight)
    assert packed is not None
    for bias in (None, torch.randn(outputs)):
        expected = torch.nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
        found = bf16_linear(x, packed, bias, backend)
        assert found.dtype == torch.float32 and found.is_contiguous()
        torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_a_row_is_the_same_alone_and_in_any_batch(outputs: int, inputs: int) -> None:
    torch.manual_seed(1)
    packed, x = pack_weight(_weight(outputs, inputs)), torch.randn(50, inputs)
    assert packed is not None
    together = bf16_linear(x, packed)
    for row in range(50):
        assert torch.equal(bf16_linear(x[row : row + 1], packed)[0], together[row])
    for rows in (2, 4, 5, 6, 7, 8, 13, 47):
        assert torch.equal(bf16_linear(x[3 : 3 + rows].contiguous(), packed), together[3 : 3 + rows])


def test_a_packed_weight_gives_its_values_back() -> None:
    weight = _weight(48, 32)
    packed = pack_weight(weight)
    assert packed is not None and packed.shape == (48, 32) and torch.equal(packed.dense(), weight)


def test_what_bf16_cannot_hold_and_what_fills_no_vector_is_not_packed() -> None:
    weight = _weight(16, 16)
    weight[3, 5] = 1 + 2**-10
    assert pack_weight(weight) is None
    assert pack_weight(_weight(24, 16)) is None and pack_weight(_weight(16, 24)) is None


@pytest.mark.parametrize("outputs", [(16,), (32, 16, 16), (320, 16)])
@pytest.mark.parametrize("inputs", [16, 48, 1024])
def test_weights_below_one_another_are_packed_as_the_definition_packs_them(
    outputs: tuple[int, ...], inputs: int
) -> None:
    torch.manual_seed(inputs)
    weights = [_weight(each, inputs) for each in outputs]
    weights[-1][0, :4] = torch.tensor([0.0, -0.0, float("inf"), -float("inf")])
    weights[0][1, 2] = float("nan")
    before = [weight.clone() for weight in weights]
    found, defined = pack_weight(*weights), pack_weight(*weights, backend="reference")
    assert found is not None and defined is not None
    numbers = ~defined.panels.isnan()
    assert torch.equal(found.panels.view(torch.int16)[numbers], defined.panels.view(torch.int16)[numbers])
    torch.testing.assert_close(found.dense(), torch.cat(weights), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(weights, before, rtol=0, atol=0, equal_nan=True)


def test_weights_of_other_inputs_are_no_weight() -> None:
    for weights in ((_weight(16, 64), _weight(16, 32)), ()):
        with pytest.raises(ValueError, match="same inputs"):
            pack_weight(*weights)


@pytest.mark.parametrize("place", [(0, 0), (15, 1), (319, 47), (300, 30)])
def test_one_value_that_bf16_cannot_hold_is_found_wherever_it_stands(place: tuple[int, int]) -> None:
    weight, other = _weight(320, 48), _weight(16, 48)
    weight[place] = 1 + 2**-10
    for backend in ("auto", "reference"):
        assert pack_weight(other, weight, backend=backend) is None
        assert pack_weight(weight, other, backend=backend) is None
    view = torch.zeros(48, 320)
    view.copy_(_weight(48, 320))
    turned = pack_weight(view.t())
    assert turned is not None and torch.equal(turned.dense(), view.t())
