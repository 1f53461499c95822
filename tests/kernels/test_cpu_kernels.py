"""The CPU kernels against their PyTorch definitions."""

from __future__ import annotations

import pytest
import torch

from ift_kernels.fused_add_rms_norm import fused_add_rms_norm
from ift_kernels.fused_add_rms_norm.reference import fused_add_rms_norm_reference
from ift_kernels.instruction import InstructionBias
from ift_kernels.paged_decode import paged_decode
from ift_kernels.paged_decode.reference import paged_decode_reference
from ift_kernels.silu_and_mul import silu_and_mul
from ift_kernels.silu_and_mul.reference import silu_and_mul_reference
from ift_kernels.write_kv import rotate_and_write_kv, write_kv
from ift_kernels.write_kv.reference import rotate_and_write_kv_reference

TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1.6e-2}
DTYPES = list(TOLERANCE)


def _cache(blocks: int, kv_heads: int, width: int, block: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    padded = -(-width // 16) * 16
    keys = torch.randn(blocks, kv_heads, width, block).to(dtype)
    return keys, torch.randn(blocks, kv_heads, block, padded).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "width", "block", "window", "softcap"),
    [
        (9, 3, 64, 16, 0, 0.0),
        (4, 4, 20, 16, 7, 0.0),
        (8, 1, 128, 32, 40, 30.0),
        (6, 2, 80, 16, 0, 0.0),
        (5, 1, 96, 48, 1, 0.0),
    ],
)
def test_paged_decode(
    dtype: torch.dtype, heads: int, kv_heads: int, width: int, block: int, window: int, softcap: float
) -> None:
    torch.manual_seed(0)
    lengths = [1, 15, 16, 17, 47, 48, 49, 130]
    blocks = sum(-(-n // block) for n in lengths) + 2
    keys, values = _cache(blocks, kv_heads, width, block, dtype)
    free = torch.randperm(blocks).tolist()
    tables = torch.zeros(len(lengths), max(-(-n // block) for n in lengths), dtype=torch.int32)
    for row, n in enumerate(lengths):
        for place in range(-(-n // block)):
            tables[row, place] = free.pop()
    # Rows out of order, with three tokens of one sequence.
    sequence = torch.tensor([7, 7, 7, 0, 1, 2, 3, 4, 5, 6], dtype=torch.int32)
    seen = torch.tensor([128, 129, 130, 1, 15, 16, 17, 47, 48, 49], dtype=torch.int32)
    states = torch.randn(10, heads + 3, width).to(dtype)
    query = states[:, :heads]
    given = (query, keys, values, tables, sequence, seen)
    output = paged_decode(*given, 130, width**-0.5, window, softcap)
    expected = paged_decode_reference(*given, width**-0.5, window, softcap)
    torch.testing.assert_close(output, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    tiles = torch.tensor([0, 3, 4, 5, 6, 7, 8, 9, 10], dtype=torch.int32)
    assert torch.equal(paged_decode(*given, 130, width**-0.5, window, softcap, tiles), output)


def test_paged_decode_never_reads_past_the_length() -> None:
    keys, values = _cache(2, 1, 32, 16, torch.float32)
    keys[0, :, :, 5:], values[0, :, 5:] = float("nan"), float("nan")
    output = paged_decode(
        torch.randn(1, 2, 32),
        keys,
        values,
        torch.zeros(1, 1, dtype=torch.int32),
        torch.zeros(1, dtype=torch.int32),
        torch.tensor([5], dtype=torch.int32),
        5,
        0.2,
    )
    assert torch.isfinite(output).all()


def test_paged_decode_of_a_row_ignores_the_other_rows() -> None:
    torch.manual_seed(1)
    keys, values = _cache(40, 2, 64, 16, torch.bfloat16)
    tables = torch.arange(40, dtype=torch.int32).view(8, 5)
    query = torch.randn(8, 6, 64).bfloat16()
    sequence, lengths = (
        torch.arange(8, dtype=torch.int32),
        torch.tensor([80, 3, 17, 64, 33, 1, 50, 79], dtype=torch.int32),
    )
    together = paged_decode(query, keys, values, tables, sequence, lengths, 80, 0.125)
    for row in range(8):
        alone = paged_decode(
            query[row : row + 1], keys, values, tables, sequence[row : row + 1], lengths[row : row + 1], 80, 0.125
        )
        assert torch.equal(alone[0], together[row])


def _bias(sequences: int, longest: int, heads: int) -> InstructionBias:
    mask = (torch.rand(sequences, longest) < 0.4).to(torch.uint8)
    return InstructionBias(
        mask, torch.randn(3, heads) * 2, torch.arange(sequences, dtype=torch.int32) % 3, torch.rand(sequences) * 2
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("window", "softcap", "longest"), [(0, 0.0, 160), (0, 20.0, 150), (21, 0.0, 147)])
def test_paged_decode_with_an_instruction_bias(dtype: torch.dtype, window: int, softcap: float, longest: int) -> None:
    torch.manual_seed(2)
    keys, values = _cache(30, 2, 64, 16, dtype)
    tables = torch.randperm(30).int().view(3, 10)
    query = torch.randn(8, 6, 64).to(dtype)
    sequence = torch.tensor([2, 2, 2, 2, 0, 0, 1, 1], dtype=torch.int32)
    lengths = torch.tensor([126, 127, 128, 129, 1, 2, 146, 147], dtype=torch.int32)
    bias = _bias(3, longest, 6)
    given = (query, keys, values, tables, sequence, lengths)
    output = paged_decode(*given, 147, 0.125, window, softcap, instruction=bias)
    expected = paged_decode_reference(*given, 0.125, window, softcap, bias)
    torch.testing.assert_close(output, expected, atol=3 * TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    tiles = torch.tensor([0, 4, 6, 8], dtype=torch.int32)
    assert torch.equal(paged_decode(*given, 147, 0.125, window, softcap, tiles, bias), output)
    for row in range(8):
        alone = paged_decode(
            query[row : row + 1],
            keys,
            values,
            tables,
            sequence[row : row + 1],
            lengths[row : row + 1],
            150,
            0.125,
            window,
            softcap,
            instruction=bias,
        )
        assert torch.equal(alone[0], output[row])


def test_paged_decode_without_strength_is_without_bias_bit_for_bit() -> None:
    torch.manual_seed(3)
    keys, values = _cache(10, 1, 32, 16, torch.bfloat16)
    tables, rows = torch.arange(10, dtype=torch.int32).view(2, 5), torch.arange(2, dtype=torch.int32)
    given = (torch.randn(2, 4, 32).bfloat16(), keys, values, tables, rows, torch.tensor([80, 33], dtype=torch.int32))
    bias = _bias(2, 80, 4)
    bias.strength[:] = 0
    assert torch.equal(paged_decode(*given, 80, 0.2, instruction=bias), paged_decode(*given, 80, 0.2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 7, 200])
def test_fused_add_rms_norm(dtype: torch.dtype, rows: int) -> None:
    torch.manual_seed(0)
    hidden, delta, weight = (
        torch.randn(rows, 576).to(dtype),
        torch.randn(rows, 576).to(dtype),
        torch.randn(576).to(dtype),
    )
    for change in (delta, None):
        ours, theirs = hidden.clone(), hidden.clone()
        output = fused_add_rms_norm(ours, change, weight, 1e-5)
        expected = fused_add_rms_norm_reference(theirs, change, weight, 1e-5)
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(output, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 5, 130])
def test_silu_and_mul(dtype: torch.dtype, rows: int) -> None:
    torch.manual_seed(0)
    gate_up = (torch.randn(rows, 320) * 8).to(dtype)
    gate_up[0, :4] = torch.tensor([-100.0, 100.0, 0.0, -87.5]).to(dtype)
    torch.testing.assert_close(silu_and_mul(gate_up), silu_and_mul_reference(gate_up), atol=1e-5, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("tokens", "rotary", "normed"), [(1, 64, False), (9, 64, True), (70, 48, True), (33, 20, False)]
)
def test_rotate_and_write_kv(dtype: torch.dtype, tokens: int, rotary: int, normed: bool) -> None:
    torch.manual_seed(0)
    heads, kv_heads, width, block = 6, 2, 64, 16
    states = torch.randn(tokens, (heads + 2 * kv_heads) * width).to(dtype)
    angles = torch.rand(300, rotary // 2) * 6
    cosine, sine = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
    positions = torch.randint(0, 300, (tokens,), dtype=torch.int32)
    slots = torch.randperm(6 * block)[:tokens].int()
    norms = (torch.randn(width).to(dtype), torch.randn(width).to(dtype)) if normed else (None, None)
    found, expected = list[torch.Tensor](), list[torch.Tensor]()
    for function, out in ((rotate_and_write_kv, found), (rotate_and_write_kv_reference, expected)):
        own = states.clone()
        keys, values = (
            torch.zeros(6, kv_heads, width, block, dtype=dtype),
            torch.zeros(6, kv_heads, block, width, dtype=dtype),
        )
        function(own, heads, kv_heads, cosine, sine, positions, slots, keys, values, norms[0], norms[1], 1e-6)
        out += [own, keys, values]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_write_kv_puts_each_token_in_its_slot() -> None:
    keys, values = torch.zeros(3, 2, 20, 16), torch.zeros(3, 2, 16, 32)
    key, value = torch.randn(2, 2, 20), torch.randn(2, 2, 20)
    write_kv(key, value, torch.tensor([37, 4], dtype=torch.int32), keys, values)
    assert torch.equal(keys[2, :, :, 5], key[0]) and torch.equal(keys[0, :, :, 4], key[1])
    assert torch.equal(values[2, :, 5, :20], value[0]) and torch.equal(values[0, :, 4, :20], value[1])
    assert keys.count_nonzero() == 80 and values.count_nonzero() == 80
