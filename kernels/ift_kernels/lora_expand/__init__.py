"""The second half of batched LoRA: the B factors, scaled and added to the output."""

from ift_kernels.lora_expand.api import lora_expand

__all__ = ["lora_expand"]
