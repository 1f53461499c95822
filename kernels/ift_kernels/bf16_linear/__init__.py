"""Linear layers whose weights stay bf16 in memory, for processors without bf16 products."""

from ift_kernels.bf16_linear.api import PackedWeight, bf16_linear, pack_weight

__all__ = ["PackedWeight", "bf16_linear", "pack_weight"]
