"""Cached sequences for the attention tests, and attention over them in float64 that knows nothing of pages."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ift_kernels.instruction import InstructionBias

_TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 2.5e-2}
FP8 = torch.float8_e4m3fn


@dataclass(slots=True)
class Sequences:
    """keys, values: ``[L, H_kv, D]`` float64 of each sequence, exactly what the caches hold.

    Every slot of the caches that holds no token is NaN, and spare table entries lead to a block of NaN.
    """

    keys: list[Tensor]
    values: list[Tensor]
    key_cache: Tensor
    value_cache: Tensor
    block_tables: Tensor
    lengths: Tensor


def make_sequences(
    lengths: list[int],
    kv_heads: int,
    width: int,
    block: int,
    dtype: torch.dtype,
    token_major: bool = True,
    forgotten: int = 0,
) -> Sequences:
    """Random sequences in shuffled blocks; all but the last ``forgotten`` tokens are left out of the cache (0: none).

    token_major: keys as a GPU stores them, a token's key contiguous; otherwise as the CPU does, with values padded.
    """
    counts = [-(-length // block) for length in lengths]
    blocks, columns = sum(counts) + 1, max(counts, default=0) + 1
    nan = float("nan")
    if token_major:
        key_cache = torch.full((blocks, kv_heads, block, width), nan).to(dtype).transpose(2, 3)
        value_cache = torch.full((blocks, kv_heads, block, width), nan).to(dtype)
    else:
        key_cache = torch.full((blocks, kv_heads, width, block), nan).to(dtype)
        value_cache = torch.full((blocks, kv_heads, block, -(-width // 16) * 16), nan).to(dtype)
    free = torch.randperm(blocks).tolist()
    tables = torch.full((len(lengths), columns), free.pop(), dtype=torch.int32)
    keys, values = [], []
    for sequence, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        key, value = torch.randn(2, length, kv_heads, width).to(dtype)
        own = torch.tensor([free.pop() for _ in range(count)], dtype=torch.int64)
        tables[sequence, :count] = own.int()
        for place in range(max(0, length - forgotten) if forgotten else 0, length):
            where = int(own[place // block]), slice(None), slice(None), place % block
            key_cache[where] = key[place]
            value_cache[where[0], :, place % block, :width] = value[place]
        keys.append(key.double())
        values.append(value.double())
    return Sequences(keys, values, key_cache, value_cache, tables, torch.tensor(lengths, dtype=torch.int32))


def make_bias(sequences: Sequences, heads: int) -> InstructionBias:
    """A third of the tokens, three adapters of which the first is none, and a different strength everywhere."""
    count, longest = len(sequences.keys), sequences.block_tables.shape[1] * sequences.key_cache.shape[3]
    bias = torch.randn(3, heads) * 2
    bias[0] = 0
    adapter = torch.arange(count, dtype=torch.int32) % 3
    return InstructionBias((torch.rand(count, longest) < 0.3).to(torch.uint8), bias, adapter, torch.rand(count) * 2)


def attend(
    query: Tensor,
    sequences: Sequences,
    sequence: int,
    seen: int,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    bias: InstructionBias | None = None,
) -> Tensor:
    """One query ``[H, D]`` over the first ``seen`` tokens of a sequence, head by head, in float64."""
    first = max(0, seen - window) if window else 0
    output = torch.zeros(query.shape, dtype=torch.float64)
    for head in range(query.shape[0] if seen else 0):
        kv_head = head * sequences.key_cache.shape[1] // query.shape[0]
        scores = sequences.keys[sequence][first:seen, kv_head] @ query[head].double() * scale
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        if bias is not None:
            strength = bias.strength[sequence].double() * bias.bias[int(bias.adapter[sequence]), head].double()
            scores += strength * bias.mask[sequence, first:seen]
        output[head] = torch.softmax(scores, 0) @ sequences.values[sequence][first:seen, kv_head]
    return output


@pytest.fixture
def poisoned_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.empty gives is NaN, so that an output or a workspace that is not written shows."""
    empty = torch.empty

    def poisoned(*shape: object, **options: object) -> Tensor:
        memory: Tensor = empty(*shape, **options)  # type: ignore[call-overload]
        return memory.fill_(float("nan")) if memory.is_floating_point() else memory.fill_(-1)

    monkeypatch.setattr(torch, "empty", poisoned)


def assert_close(output: Tensor, expected: Tensor) -> None:
    """Within what the output's dtype allows of a float64 result."""
    tolerance = _TOLERANCE[output.dtype]
    torch.testing.assert_close(output.double(), expected, atol=tolerance, rtol=tolerance)
