"""Small models of several architectures, built once, and an adapter with everything to damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.config import BaseReference, IftConfig
from ift_serve.modeling.adapter_format.writer import write_adapter
from ift_serve.modeling.components.config import ComponentsConfig
from tests.support.adapters import random_components
from tests.support.architectures import build

COMPONENTS = ComponentsConfig(segment_embedding=True, attention_bias=True, adherence_head=8)


@pytest.fixture(scope="session")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a small model by the name of its architecture."""
    built: dict[str, Path] = {}

    def path(name: str) -> Path:
        if name not in built:
            built[name] = build(name, tmp_path_factory.mktemp("base") / name)
        return built[name]

    return path


@pytest.fixture(scope="session")
def metadata(base_of: Callable[[str], Path]) -> BaseMetadata:
    return BaseMetadata.of_directory(base_of("llama"))


@pytest.fixture(scope="session")
def original(metadata: BaseMetadata, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A right adapter with LoRA and components, never changed."""
    torch.manual_seed(0)
    tensors = {}
    for path in sorted(metadata.linears):
        if path.endswith(("q_proj", "down_proj")):
            rows, columns = metadata.shapes[f"{path}.weight"]
            tensors[f"base_model.model.{path}.lora_A.weight"] = torch.randn(4, columns)
            tensors[f"base_model.model.{path}.lora_B.weight"] = torch.randn(rows, 4)
    directory = tmp_path_factory.mktemp("adapters") / "original"
    write_adapter(
        directory,
        peft_fields=LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM").to_dict(),
        peft_tensors=tensors,
        config=IftConfig(
            base=BaseReference(
                fingerprint=metadata.fingerprint, architecture=metadata.architecture, shape=metadata.shape
            ),
            components=COMPONENTS,
            scores={"overall": 0.75},
        ),
        extras=random_components(metadata, COMPONENTS, seed=1).state_dict(),
        card="# An adapter\n",
    )
    return directory


@pytest.fixture
def adapter(original: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(original, tmp_path / "adapter"))
