"""Token embeddings are kept in the fewest bits that hold them, and give the rows of the table."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ift_kernels.quantize_weight import quantize_weight
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.runner import model_runner
from ift_serve.engine.runner.model_runner import ModelRunner
from ift_serve.modeling.decoder.embedding import TokenEmbeddings
from ift_serve.modeling.decoder.model_loader import LoadedModel, load_model
from tests.support.architectures import build

IDS = torch.tensor([3, 0, 47, 3])


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_those_of_the_table(dtype: torch.dtype, narrow: bool) -> None:
    table = torch.randn(48, 32)
    if narrow or dtype == torch.bfloat16:
        table = table.bfloat16().to(dtype)
    embeddings = TokenEmbeddings(table, dtype)
    assert torch.equal(embeddings(IDS), table[IDS]) and embeddings(IDS).dtype == dtype
    assert torch.equal(embeddings.dense(), table)


def test_rows_of_codes_are_what_they_stand_for() -> None:
    packed = quantize_weight(torch.randn(48, 64), 8)
    assert packed is not None
    embeddings = TokenEmbeddings(packed, torch.float32)
    assert torch.equal(embeddings(IDS), packed.dense()[IDS]) and torch.equal(embeddings.dense(), packed.dense())


@pytest.mark.parametrize("weights", ["auto", "int8"])
def test_a_runner_keeps_no_weight_as_it_was_loaded(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Tensor]] = []

    def watch(path: str, **options: object) -> LoadedModel:
        found = load_model(path, **options)  # type: ignore[arg-type]
        model: nn.Module = found.model
        loaded.extend(weakref.ref(parameter) for parameter in model.parameters() if parameter.dim() == 2)
        return found

    monkeypatch.setattr(model_runner, "load_model", watch)
    path = build("llama", tmp_path, dtype=torch.bfloat16)
    options = {"model": str(path), "dtype": "float32", "weights": weights, "total_blocks": 8}
    runner = ModelRunner(EngineConfig.model_validate(options))
    assert loaded and runner.description.layers and not [ref for ref in loaded if ref() is not None]
