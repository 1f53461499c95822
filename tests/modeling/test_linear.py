"""Which linear layer a weight gets, and that each computes the layer."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear

from ift_kernels.quantize_weight import quantize_weight
from ift_kernels.quantized_linear import round_inputs, runs_here
from ift_serve.modeling.decoder import linear as layers
from ift_serve.modeling.decoder.linear import Bf16Linear, PackedLinear, join_linears, make_linear
from ift_serve.modeling.decoder.quantization import QuantizedWeights


@pytest.fixture
def no_bf16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor with AVX2 only."""
    monkeypatch.setattr(layers, "has_bf16_products", lambda: False)


@pytest.mark.parametrize("shape", [(16,), (3, 16), (2, 5, 16)])
@pytest.mark.usefixtures("no_bf16_products")
def test_a_weight_that_was_stored_in_bf16_stays_so_and_loses_nothing(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(48, 16).bfloat16().float(), torch.randn(48)
    layer = make_linear(weight, bias)
    assert isinstance(layer, Bf16Linear) and (layer.out_features, layer.in_features) == (48, 16)
    x = torch.randn(shape)
    found = layer(x)
    assert found.shape == (*shape[:-1], 48)
    torch.testing.assert_close(found.double(), linear(x.double(), weight.double(), bias.double()), atol=3e-6, rtol=3e-6)
    dense = layer.dense()
    assert torch.equal(dense[0], weight) and dense[1] is not None and torch.equal(dense[1], bias)


@pytest.mark.usefixtures("no_bf16_products")
def test_a_weight_with_more_digits_than_bf16_has_keeps_them() -> None:
    layer = make_linear(torch.full((16, 16), 1 + 2**-12), None)
    assert isinstance(layer, PackedLinear) and float(layer(torch.ones(1, 16))[0, 0]) == 16 + 2**-8


def test_where_the_processor_multiplies_bf16_float32_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "has_bf16_products", lambda: True)
    assert isinstance(make_linear(torch.ones(16, 16), None), PackedLinear)


@pytest.mark.skipif(not runs_here(), reason="weights of 8 and 4 bits need AVX2")
@pytest.mark.parametrize("kinds", [(8, 8), (4, 4), (8, 4), (8, None), (None, None)])
@pytest.mark.parametrize("biased", [(True, False), (False, False)])
def test_joined_layers_are_the_layers_side_by_side(kinds: tuple[int | None, ...], biased: tuple[bool, ...]) -> None:
    torch.manual_seed(7)
    layers = [torch.nn.Linear(64, outputs, bias=bias) for outputs, bias in zip((32, 48), biased, strict=True)]
    weights = QuantizedWeights()
    for layer, bits in zip(layers, kinds, strict=True):
        if bits is not None and (rounded := quantize_weight(layer.weight, bits, in_place=True)) is not None:
            weights.keep(layer, rounded)
    joined, inputs = join_linears(layers, weights), torch.randn(5, 64)
    parts = []
    for layer, bits in zip(layers, kinds, strict=True):
        rows = inputs if bits is None else round_inputs(inputs)
        parts.append(layer(rows))
    assert joined.out_features == 80 and joined.in_features == 64
    torch.testing.assert_close(joined(inputs), torch.cat(parts, -1), atol=1e-5, rtol=1e-5)
    weight, bias = joined.dense()
    torch.testing.assert_close(weight, torch.cat([layer.weight for layer in layers]))
    assert (bias is None) == (not any(biased))
