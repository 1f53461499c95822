"""Linear layers with weights of 8 or 4 bits."""

from ift_kernels.quantized_linear.api import quantized_linear, runs_here
from ift_kernels.quantized_linear.quantize import pack_codes, quantize_weight, stack_weights
from ift_kernels.quantized_linear.reference import round_inputs
from ift_kernels.quantized_linear.types import QuantizedWeight

__all__ = [
    "QuantizedWeight",
    "pack_codes",
    "quantize_weight",
    "quantized_linear",
    "round_inputs",
    "runs_here",
    "stack_weights",
]
