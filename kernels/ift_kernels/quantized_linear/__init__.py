"""Linear layers with weights of 8 or 4 bits."""

from ift_kernels.quantized_linear.api import quantized_linear, runs_here
from ift_kernels.quantized_linear.packing import pack_codes, stack_weights
from ift_kernels.quantized_linear.reference import round_inputs
from ift_kernels.quantized_linear.types import QuantizedWeight

__all__ = [
    "QuantizedWeight",
    "pack_codes",
    "quantized_linear",
    "round_inputs",
    "runs_here",
    "stack_weights",
]
