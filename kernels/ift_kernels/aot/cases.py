"""Launches of every kernel with the shapes of real models, on CPU tensors that only stand for device memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ift_kernels.backend import INVARIANT
from ift_kernels.fixed_linear import fixed_linear
from ift_kernels.fused_add_rms_norm import fused_add_rms_norm
from ift_kernels.instruction import InstructionBias
from ift_kernels.lora import LoraRows, LoraTable
from ift_kernels.lora_add import lora_add
from ift_kernels.paged_decode import paged_decode
from ift_kernels.paged_prefill import paged_prefill
from ift_kernels.paged_prefill.plan import prefill_plan
from ift_kernels.row_statistics import RowStatistics
from ift_kernels.sample_rows import RowParameters, SparseAdjustments, TokenMasks, Truncations, sample_rows
from ift_kernels.sample_rows.api import greedy_parameters
from ift_kernels.silu_and_mul import silu_and_mul
from ift_kernels.temperature_heads import HeadRows, HeadTable, temperature_heads
from ift_kernels.write_kv import rotate_and_write_kv, write_kv

Launch = Callable[[], None]
BLOCK = 16
_BF16 = torch.bfloat16


def _empty(*shape: int, dtype: torch.dtype = _BF16) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def _integers(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int32)


def _caches(kv_heads: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    keys = _empty(2, kv_heads, BLOCK, width, dtype=dtype).transpose(2, 3)
    return keys, _empty(2, kv_heads, BLOCK, width, dtype=dtype)


def _bias(sequences: int, heads: int, length: int) -> InstructionBias:
    return InstructionBias(
        _empty(sequences, length, dtype=torch.uint8), torch.zeros(9, heads), _integers(sequences), torch.ones(sequences)
    )


def decode(
    rows: int, heads: int, kv_heads: int, width: int, *, blocks: int, bias: bool = False, float8: bool = False
) -> None:
    """One decode step's attention in one layer."""
    keys, values = _caches(kv_heads, width, torch.float8_e4m3fn if float8 else _BF16)
    paged_decode(
        _empty(rows, heads, width),
        keys,
        values,
        _integers(rows, blocks),
        _integers(rows),
        _integers(rows),
        blocks * BLOCK,
        width**-0.5,
        instruction=_bias(rows, heads, blocks * BLOCK) if bias else None,
        backend="triton",
    )


def prefill(
    lengths: list[int],
    heads: int,
    kv_heads: int,
    width: int,
    *,
    blocks: int,
    bias: bool = False,
    float8: bool = False,
    backend: str = "triton",
) -> None:
    """A step's prompt chunks in one layer."""
    keys, values = _caches(kv_heads, width, torch.float8_e4m3fn if float8 else _BF16)
    count = len(lengths)
    paged_prefill(
        _empty(sum(lengths), heads, width),
        keys,
        values,
        _integers(count, blocks),
        _integers(count + 1),
        _integers(count),
        width**-0.5,
        plan=prefill_plan(lengths, heads, kv_heads, width, "cpu"),
        instruction=_bias(count, heads, blocks * BLOCK) if bias else None,
        backend=backend,
    )


def write(
    tokens: int,
    heads: int,
    kv_heads: int,
    width: int,
    *,
    norms: bool = False,
    scales: tuple[float, float] | None = None,
) -> None:
    """Rotation and cache write of one layer, and the plain write of routed models; with ``scales`` into float8."""
    keys, values = _caches(kv_heads, width, _BF16 if scales is None else torch.float8_e4m3fn)
    key_scale, value_scale = scales or (1.0, 1.0)
    norm = _empty(width) if norms else None
    rotate_and_write_kv(
        _empty(tokens, (heads + 2 * kv_heads) * width),
        heads,
        kv_heads,
        torch.zeros(64, width),
        torch.zeros(64, width),
        _integers(tokens),
        _integers(tokens),
        keys,
        values,
        norm,
        norm,
        1e-6,
        key_scale,
        value_scale,
        backend="triton",
    )
    if not norms:
        states = _empty(tokens, kv_heads, width)
        write_kv(states, states.clone(), _integers(tokens), keys, values, key_scale, value_scale, backend="triton")


def fixed(rows: int, width: int, outputs: int) -> None:
    """A linear layer whose rows do not depend on the batch, with a bias and without."""
    inputs, weight = _empty(rows, width), _empty(outputs, width)
    fixed_linear(inputs, weight, None, "triton")
    fixed_linear(inputs, weight, weight[:, 0].clone(), "triton")


def lora(tokens: int, tiles: int, width: int, parts: tuple[int, ...], rank: int = 64) -> None:
    """Both halves of batched LoRA for one linear layer."""
    bounds = [sum(parts[:i]) for i in range(len(parts) + 1)]
    shape = (9, len(parts))
    table = LoraTable(
        torch.zeros(shape, dtype=torch.int64),
        torch.zeros(shape, dtype=torch.int64),
        _integers(*shape),
        torch.zeros(shape),
        torch.tensor(bounds),
        tuple(bounds),
        rank,
    )
    rows = LoraRows(_integers(tokens), _integers(tiles), _integers(tiles), _integers(tiles))
    lora_add(_empty(tokens, width), table, rows, _empty(tokens, bounds[-1]), backend="triton")


def sample(
    rows: int,
    size: int,
    *,
    truncated: bool = True,
    adjusted: bool = False,
    masked: bool = False,
    shaped: bool = False,
    processed: bool = False,
) -> None:
    """Statistics and draws of a batch."""
    parameters: RowParameters = greedy_parameters(rows)
    parameters.truncated = truncated
    if adjusted:
        parameters.adjustments = SparseAdjustments(
            _integers(rows + 1), _integers(rows), _integers(rows), *(torch.zeros(rows) for _ in range(4))
        )
    if masked:
        parameters.masks = TokenMasks(_integers(rows, -(-size // 32)), _integers(rows))
    if shaped:
        parameters.truncations = Truncations(torch.zeros(rows), torch.zeros(rows), torch.zeros(rows))
        parameters.near = torch.zeros(rows)
    if processed:
        parameters.processed = _integers(rows)
    sample_rows(_empty(rows, size), parameters, "triton")


def temperatures(rows: int, hidden: int, width: int) -> None:
    """The temperatures of a batch by heads of its adapters."""
    addresses = torch.zeros(9, dtype=torch.int64)
    table = HeadTable(addresses, addresses.clone(), _integers(9), torch.zeros(9), width)
    of_rows = HeadRows(_integers(rows), torch.zeros(rows, dtype=torch.int64), torch.zeros(rows), torch.ones(rows))
    statistics = RowStatistics(torch.zeros(6, rows), _integers(rows, 20), torch.zeros(rows, 20))
    temperature_heads(_empty(rows, hidden), statistics, torch.ones(rows), table, of_rows, "triton")


def elementwise(rows: int, hidden: int, inner: int) -> None:
    """Normalisation, first and later ones, and gating."""
    states = _empty(rows, hidden)
    fused_add_rms_norm(states, None, states[0].clone(), 1e-5, "triton")
    fused_add_rms_norm(states, states.clone(), states[0].clone(), 1e-5, "triton")
    silu_and_mul(_empty(rows, 2 * inner), "triton")


def budgeted() -> Iterator[tuple[str, Launch]]:
    """One launch of each operation and option, at the shapes of Llama-3-8B and, where heads are narrow, SmolLM2."""
    large, small = (32, 8, 128), (9, 3, 64)
    yield "decode", lambda: decode(64, *large, blocks=512)
    yield "decode/bias", lambda: decode(64, *large, blocks=512, bias=True)
    yield "decode/float8", lambda: decode(64, *large, blocks=512, bias=True, float8=True)
    yield "decode/narrow", lambda: decode(64, *small, blocks=512, bias=True)
    yield "decode/wide", lambda: decode(64, 16, 8, 256, blocks=512, bias=True)
    yield "prefill", lambda: prefill([512], *large, blocks=512)
    yield "prefill/bias", lambda: prefill([512], *large, blocks=512, bias=True)
    yield "prefill/narrow", lambda: prefill([512], *small, blocks=512, bias=True)
    yield "prefill/float8", lambda: prefill([512], *large, blocks=512, bias=True, float8=True)
    yield "prefill/invariant", lambda: prefill([512], *large, blocks=512, bias=True, backend=INVARIANT)
    yield "write", lambda: write(64, *large)
    yield "write/norms", lambda: write(64, 16, 8, 128, norms=True)
    yield "write/float8", lambda: write(64, *large, scales=(0.25, 0.03125))
    yield "fixed", lambda: fixed(64, 4096, 4096)
    yield "lora", lambda: lora(64, 64, 4096, (4096, 1024, 1024))
    yield "sample", lambda: sample(64, 151_936, adjusted=True)
    yield "sample/plain", lambda: sample(64, 151_936, truncated=False)
    yield "sample/shaped", lambda: sample(64, 151_936, masked=True, shaped=True)
    yield "sample/processed", lambda: sample(64, 151_936, masked=True, shaped=True, processed=True)
    yield "temperatures", lambda: temperatures(64, 4096, 128)
    yield "elementwise", lambda: elementwise(64, 4096, 14_336)


def swept() -> Iterator[tuple[str, Launch]]:
    """What one model meets while it serves: any batch size, any length. Each kernel should compile once or twice."""
    shape = (32, 8, 128)
    for rows in (1, 2, 3, 15, 16, 17, 64, 100):
        for blocks in (1, 2, 17, 160):
            yield "decode", lambda r=rows, b=blocks: decode(r, *shape, blocks=b, bias=True)  # type: ignore[misc]
        yield "write", lambda r=rows: write(r, *shape)  # type: ignore[misc]
        yield "fixed", lambda r=rows: fixed(r, 4096, 4096)  # type: ignore[misc]
        yield "lora", lambda r=rows: lora(r, r, 4096, (4096, 1024, 1024))  # type: ignore[misc]
        yield "sample", lambda r=rows: sample(r, 32_000, adjusted=True, masked=True, processed=True)  # type: ignore[misc]
        yield "temperatures", lambda r=rows: temperatures(r, 4096, 128)  # type: ignore[misc]
        yield "elementwise", lambda r=rows: elementwise(r, 4096, 14_336)  # type: ignore[misc]
    for lengths in ([1], [16], [17, 300], [5, 1, 64], [512]):
        for blocks in (33, 160):
            yield "prefill", lambda n=lengths, b=blocks: prefill(n, *shape, blocks=b, bias=True)  # type: ignore[misc]
