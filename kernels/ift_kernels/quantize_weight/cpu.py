"""The rounding of a weight on the CPU: a panel of 16 outputs a work item, its groups of 32 inputs one after the other.

Two passes: the first only looks for values that cannot be rounded, so that a weight that has one stays as it is.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc"

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ift_kernels.cpu_simd import integers, openmp, simd
from ift_kernels.cpu_simd.inner import inlined, inner
from ift_kernels.cpu_simd.integers import magnitude, round_lanes, store_half, store_rounded
from ift_kernels.cpu_simd.simd import (
    LANES,
    add,
    fma,
    load,
    load_i32,
    load_i64,
    max_lanes,
    maximum,
    mul,
    splat,
    store,
    store_i32,
    sub,
    sum_lanes,
    zero,
)
from ift_kernels.quantized_linear.types import GROUP, PANEL, QuantizedWeight

_NEXT, _WORKER, _WEIGHT, _PANELS, _WIDTH, _BITS, _CODES, _SCALES, _MINIMUMS, _REPLACES, _LOST, _BYTES = range(12)
_LARGEST = np.float32(torch.finfo(torch.float16).max)
_FEW_PANELS = 16
"""Below so many, waking a second thread costs more than it saves."""


@inlined
def _at_most(values, limit):
    return sub(zero(), maximum(sub(zero(), values), splat(-limit)))


@inlined
def _is_lost(kind, x):
    """Whether a group has a value that is not finite or beyond float16."""
    a, b = load(kind, x, 0), load(kind, x, LANES)
    odd = sum_lanes(fma(b, zero(), mul(a, zero())))
    return odd != 0 or max_lanes(maximum(magnitude(a), magnitude(b))) > _LARGEST


@inlined
def _steps(values, minimum, inverse, low, high):
    """Rounded, and without a negative zero."""
    steps = round_lanes(mul(sub(values, splat(minimum)), splat(inverse)))
    return add(_at_most(maximum(steps, splat(low)), high), zero())


@inner
def _round_group(kind, x, bits, codes, scale_at, minimum_at, replaces):
    """32 inputs of one output as bytes; scale and minimum go where they are kept."""
    a, b = load(kind, x, 0), load(kind, x, LANES)
    if bits == 8:
        minimum = np.float32(0.0)
        scale = store_half(scale_at, 0, max_lanes(maximum(magnitude(a), magnitude(b))) / np.float32(127.0))
        low, high = np.float32(-127.0), np.float32(127.0)
    else:
        largest = max_lanes(maximum(a, b))
        smallest = -max_lanes(maximum(sub(zero(), a), sub(zero(), b)))
        minimum = store_half(minimum_at, 0, smallest)
        scale = store_half(scale_at, 0, (largest - smallest) / np.float32(15.0))
        low, high = np.float32(0.0), np.float32(15.0)
    inverse = np.float32(0.0)
    if scale != 0:
        inverse = np.float32(1.0) / scale
    a, b = _steps(a, minimum, inverse, low, high), _steps(b, minimum, inverse, low, high)
    store_rounded(codes, 0, a)
    store_rounded(codes, LANES, b)
    if replaces != 0:
        a, b = mul(a, splat(scale)), mul(b, splat(scale))
        if bits != 8:
            a, b = add(a, splat(minimum)), add(b, splat(minimum))
        store(kind, x, 0, a)
        store(kind, x, LANES, b)


@inlined
def _put_codes(codes, bits, target):
    """Four inputs a word, at a distance of 16 words; of four bits the lower and the upper halves of one."""
    if bits == 8:
        for word in range(8):
            store_i32(target, PANEL * word, load_i32(codes, word))
    else:
        for word in range(4):
            both = load_i32(codes, 2 * word) | (load_i32(codes, 2 * word + 1) << 4)
            store_i32(target, PANEL * word, both)


@inner
def _round_panel(kind, size, args, panel, codes):
    width, bits = load_i64(args, _WIDTH), load_i64(args, _BITS)
    groups = width // GROUP
    source = load_i64(args, _WEIGHT) + size * panel * PANEL * width
    target = load_i64(args, _CODES) + panel * 2 * bits * width
    scales, minimums = load_i64(args, _SCALES), load_i64(args, _MINIMUMS)
    for g in range(groups):
        for row in range(PANEL):
            x = source + size * (row * width + g * GROUP)
            place = 2 * ((panel * groups + g) * PANEL + row)
            _round_group(kind, x, bits, codes, scales + place, minimums + place, load_i64(args, _REPLACES))
            _put_codes(codes, bits, target + 4 * PANEL * bits * g + 4 * row)  # a group of n bits is n words


@inner
def _look_at_panel(kind, size, args, panel):
    width = load_i64(args, _WIDTH)
    source = load_i64(args, _WEIGHT) + size * panel * PANEL * width
    for start in range(0, PANEL * width, GROUP):
        if _is_lost(kind, source + size * start):
            store_i32(args + 8 * _LOST, 0, 1)


@inlined
def _work(kind, size, args):
    """Looks at everything before anything changes."""
    panels = load_i64(args, _PANELS)
    codes = load_i64(args, _BYTES)
    if codes != 0:
        codes += GROUP * openmp.take(args + 8 * _WORKER)
    while True:
        panel = openmp.take(args + 8 * _NEXT)
        if panel >= panels:
            return
        if codes == 0:
            _look_at_panel(kind, size, args, panel)
        else:
            _round_panel(kind, size, args, panel, codes)


@openmp.worker(torch.float32, integers.available)
def _quantize_fp32(data):
    _work(simd.FP32, 4, openmp.address_of(data))


@openmp.worker(torch.bfloat16, integers.available)
def _quantize_bf16(data):
    _work(simd.BF16, 2, openmp.address_of(data))


_WORKERS = {torch.float32: _quantize_fp32, torch.bfloat16: _quantize_bf16}


def quantize_weight_cpu(weight: Tensor, bits: int, in_place: bool) -> QuantizedWeight | None:
    """See :func:`ift_kernels.quantize_weight.quantize_weight`. weight: float32 or bf16, of whole panels and groups."""
    values = weight.contiguous()
    width, panels = values.shape[1], len(values) // PANEL
    kind, words = (torch.int8, width // 4) if bits == 8 else (torch.uint8, width // 8)
    codes = torch.empty((panels, words, PANEL, 4), dtype=kind)
    scales = torch.empty((panels, width // GROUP, PANEL), dtype=torch.float16)
    minimums = None if bits == 8 else torch.empty_like(scales)
    threads = torch.get_num_threads() if panels >= _FEW_PANELS else 1
    scratch = np.empty(threads * GROUP, dtype=np.uint8)
    arguments = np.zeros(_BYTES + 1, dtype=np.int64)
    worker = openmp.compiled(_WORKERS[values.dtype])
    arguments[_WEIGHT:_LOST] = (
        values.data_ptr(),
        panels,
        width,
        bits,
        codes.data_ptr(),
        scales.data_ptr(),
        0 if minimums is None else minimums.data_ptr(),
        in_place,
    )
    openmp.run(openmp.entry_point(), worker, arguments, threads)
    if arguments[_LOST]:
        return None
    arguments[_NEXT], arguments[_BYTES] = 0, scratch.ctypes.data
    openmp.run(openmp.entry_point(), worker, arguments, threads)
    if in_place and values is not weight:
        weight.copy_(values)
    return QuantizedWeight(bits, codes, scales, minimums)
