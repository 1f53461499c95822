"""Weights of 8 and 4 bits as GPUs have them, as far as a CPU computes them: all but the tiles of 4 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ift_serve.engine.runner.serving_check import ServingCheck
from ift_serve.modeling.decoder import model_loader
from ift_serve.modeling.decoder.decoder import make_decoder
from ift_serve.modeling.decoder.device_weights import DeviceWeight, device_weight
from ift_serve.modeling.decoder.linear import DeviceQuantizedLinear
from ift_serve.modeling.decoder.model_loader import LoadedModel, UnsupportedModelError, load_model
from ift_serve.modeling.decoder.quantization import quantize_on_device
from tests.support.architectures import build


def _torchao() -> None:
    pytest.importorskip(
        "torchao", reason="pip install 'ift-serve[quantized]'; no part of dev, since peft imports it too"
    )


def _layer(inputs: int = 96, outputs: int = 48) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs).requires_grad_(False)


def _steps(weight: Tensor, bits: int) -> Tensor:
    """The distance of neighbouring values that each entry may be rounded to."""
    if bits == 8:
        return weight.abs().amax(1, keepdim=True).expand_as(weight) / 127
    groups = weight.unflatten(1, (-1, 32))
    low, high = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True).clamp(min=0)
    steps: Tensor = ((high - low) / 15).expand_as(groups).flatten(1)
    return steps


@pytest.mark.parametrize("bits", [8, 4])
def test_a_weight_is_rounded_to_its_bits(bits: int) -> None:
    _torchao()
    layer = _layer()
    weight = device_weight(layer, bits)
    assert weight is not None and weight.shape == (48, 96) and weight.bits == bits
    dense = weight.dense()
    error = (dense - layer.weight).abs() / _steps(layer.weight, bits)
    # A zero that is a whole number of steps moves the others by up to half a one.
    assert 0.3 < float(error.max()) <= (0.51 if bits == 8 else 1.01)
    rows = torch.randn(5, 96)
    served = DeviceQuantizedLinear(weight, layer.bias)
    torch.testing.assert_close(served(rows), linear(rows, dense, layer.bias), atol=2e-5, rtol=2e-5)
    assert torch.equal(served.dense()[0], dense)


def test_shapes_that_fit_no_group_stay_as_they_are() -> None:
    _torchao()
    assert device_weight(_layer(inputs=40), 4) is None
    assert device_weight(_layer(inputs=40), 8) is not None


def _quantized(path: Path, choice: str) -> LoadedModel:
    loaded = load_model(str(path), dtype="float32")
    loaded.quantized = quantize_on_device(loaded.model, choice)
    loaded.weights = choice
    return loaded


@pytest.mark.parametrize("choice", ["int8", "int4"])
@pytest.mark.parametrize(("name", "decoder"), [("llama-biased", "fused"), ("gpt-neox", "routed")])
def test_a_model_is_served_as_transformers_computes_what_the_codes_stand_for(
    name: str, decoder: str, choice: str, tmp_path: Path
) -> None:
    _torchao()
    loaded = _quantized(build(name, tmp_path), choice)
    model: Any = loaded.model
    layers = [module for module in model.modules() if isinstance(loaded.quantized.get(module), DeviceWeight)]
    assert len(layers) == 3 * (7 if decoder == "fused" else 4) + 1
    check = ServingCheck(loaded, "cpu", 16)
    made = make_decoder(loaded, "cpu", fuse=check.fuses)
    assert made.name == decoder
    check.compare(made)


def test_embeddings_of_a_tied_head_stay_exact(tmp_path: Path) -> None:
    _torchao()
    path = build("llama-biased", tmp_path)
    plain: Any = load_model(str(path), dtype="float32").model
    rounded: Any = _quantized(path, "int4").model
    assert torch.equal(rounded.model.embed_tokens.weight, plain.model.embed_tokens.weight)
    assert not torch.equal(rounded.lm_head.weight, plain.lm_head.weight)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(_layer())
    monkeypatch.setattr(model_loader, "has_torchao", lambda: False)
    with pytest.raises(UnsupportedModelError, match=r"torchao: pip install 'ift-serve\[quantized\]'"):
        model_loader._quantized_on_device(model, "int8", torch.bfloat16, "m")
    monkeypatch.setattr(model_loader, "has_torchao", lambda: True)
    with pytest.raises(UnsupportedModelError, match="int4 on a GPU computes in bfloat16, and not float16"):
        model_loader._quantized_on_device(model, "int4", torch.float16, "m")
