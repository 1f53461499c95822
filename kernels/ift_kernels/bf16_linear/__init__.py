"""Linear layers whose weights stay bf16 in memory, for processors without bf16 products."""

from ift_kernels.bf16_linear.api import bf16_linear, pack_weight
from ift_kernels.bf16_linear.types import PackedWeight

__all__ = ["PackedWeight", "bf16_linear", "pack_weight"]
