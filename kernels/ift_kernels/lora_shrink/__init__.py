"""The first half of batched LoRA: rows times the A factors of their adapters."""

from ift_kernels.lora_shrink.api import lora_shrink

__all__ = ["lora_shrink"]
