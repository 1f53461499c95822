"""``y += scale B A x`` for rows of many adapters."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from torch import Tensor

from ift_kernels.backend import uses_cpu
from ift_kernels.lora import LoraRows, LoraTable
from ift_kernels.lora_expand import lora_expand
from ift_kernels.lora_shrink import lora_shrink

_LANES = 16
_Kernel = Callable[[Tensor, LoraTable, LoraRows, Tensor], None]


@cache
def _cpu() -> _Kernel:
    from ift_kernels.lora_add.cpu import lora_add_cpu

    return lora_add_cpu


def lora_add(inputs: Tensor, table: LoraTable, rows: LoraRows, output: Tensor, backend: str = "auto") -> None:
    """Add every adapted row's low-rank change to the output of a linear layer, in place (Hu et al., LoRA, eq. 3).

    inputs: ``[T, K]``, output: ``[T, N]`` of one dtype with unit column strides. Two launches on a GPU; one on the
    CPU, where tiles hold at most 4 rows and a row's result does not depend on the others, bit for bit.
    """
    if uses_cpu(inputs, backend) and table.lanes and not inputs.shape[1] % _LANES:
        _cpu()(inputs, table, rows, output)
    elif rows.order.shape[0]:
        lora_expand(lora_shrink(inputs, table, rows, backend), table, rows, output, backend)
