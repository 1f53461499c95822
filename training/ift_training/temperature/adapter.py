"""Writes the heads as an adapter directory: no low-rank part, nothing that changes keys or values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ift_serve.modeling.adapter_format.base import BaseMetadata
from ift_serve.modeling.adapter_format.config import BaseReference, IftConfig
from ift_serve.modeling.adapter_format.writer import write_adapter
from ift_serve.modeling.components.instruction_components import InstructionComponents


def write_heads(
    directory: Path, components: InstructionComponents, metadata: BaseMetadata, card: str = "", **fields: Any
) -> None:
    """``fields`` go into the configuration: recipe, scores, calibration_temperature. Raises OSError."""
    base = BaseReference(fingerprint=metadata.fingerprint, architecture=metadata.architecture, shape=metadata.shape)
    write_adapter(
        directory,
        peft_fields=None,
        peft_tensors={},
        config=IftConfig(base=base, components=components.config, **fields),
        extras=components.state_dict(),
        card=card,
    )
