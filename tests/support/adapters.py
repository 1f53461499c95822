"""Random adapters for small models, in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

from ift_serve.engine.adapters.host import ReadAdapter
from ift_serve.engine.adapters.tensors import DeviceAdapterTensors
from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.config import BaseReference, IftConfig
from ift_serve.modeling.adapter_format.weights import AdapterWeights, LoraModule
from ift_serve.modeling.adapter_format.writer import write_adapter
from ift_serve.modeling.components.config import BaseShape, ComponentsConfig
from ift_serve.modeling.components.instruction_components import InstructionComponents

EVERYTHING = ComponentsConfig(
    segment_embedding=True,
    instruction_embedding=4,
    instruction_encoder=16,
    two_stream=8,
    attention_bias=True,
    attention_gain=True,
    instruction_gate=4,
    reasoning_pathways=12,
    temperature_head=8,
    sequence_temperature=8,
    mode_classifier=8,
    adherence_head=8,
)


class MemoryHost:
    """The adapter host of a runner, with adapters from memory in place of directories."""

    def __init__(self, host: DeviceAdapterTensors, weights: dict[str, AdapterWeights]) -> None:
        self._host = host
        self._weights = weights

    def read(self, path: str, root: str) -> ReadAdapter:
        """What lies under a name."""
        return self._host.take(self._weights[path])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)


def shape_of(metadata: BaseMetadata) -> BaseShape:
    """The dimensions that components depend on."""
    return BaseShape(
        hidden_size=metadata.hidden_size,
        layers=metadata.layers,
        heads=metadata.heads,
        vocabulary_size=metadata.vocabulary_size,
    )


def random_components(
    metadata: BaseMetadata, config: ComponentsConfig, *, seed: int, size: float = 0.3
) -> InstructionComponents:
    """Components of which every parameter is far from its start."""
    torch.manual_seed(seed)
    components = InstructionComponents(config, shape_of(metadata))
    with torch.no_grad():
        for parameter in components.parameters():
            parameter.add_(torch.randn_like(parameter) * size)
    return components


def random_weights(
    metadata: BaseMetadata,
    config: ComponentsConfig | None = None,
    *,
    seed: int,
    rank: int = 4,
    targets: tuple[str, ...] = (),
) -> AdapterWeights:
    """An adapter with LoRA on the linear layers whose names end in ``targets``, and random components."""
    config = config or ComponentsConfig()
    components = random_components(metadata, config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    lora = {}
    for path in sorted(metadata.linears):
        if path.rsplit(".", 1)[-1] in targets:
            outputs, inputs = metadata.shapes[f"{path}.weight"]
            a = torch.randn(rank, inputs, generator=generator) / inputs**0.5
            b = torch.randn(outputs, rank, generator=generator) / rank**0.5
            lora[path] = LoraModule(a, b, 0.7)
    extras = {name: tensor.clone() for name, tensor in components.state_dict().items()}
    return AdapterWeights(f"{seed:016x}", rank if lora else 0, lora, {}, {}, config, extras)


def write_random(
    directory: Path,
    metadata: BaseMetadata,
    config: ComponentsConfig | None = None,
    *,
    seed: int,
    rank: int = 4,
    targets: tuple[str, ...] = ("q_proj", "down_proj"),
) -> Path:
    """The same as a directory."""
    weights = random_weights(metadata, config, seed=seed, rank=rank, targets=targets)
    tensors = {}
    for path, module in weights.lora.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = module.a
        tensors[f"base_model.model.{path}.lora_B.weight"] = module.b
    fields = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), task_type="CAUSAL_LM").to_dict()
    base = BaseReference(fingerprint=metadata.fingerprint, architecture=metadata.architecture, shape=shape_of(metadata))
    write_adapter(
        directory,
        peft_fields=fields if tensors else None,
        peft_tensors=tensors,
        config=IftConfig(base=base, components=weights.components),
        extras=weights.extras,
        card="# Random\n",
    )
    return directory
