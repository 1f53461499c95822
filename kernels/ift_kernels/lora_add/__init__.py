"""Batched LoRA: both halves, added to the output of a linear layer."""

from ift_kernels.lora_add.api import lora_add

__all__ = ["lora_add"]
