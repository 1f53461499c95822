"""Cache writes and rotation in Triton's interpreter against their definition, and what the definition promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ift_kernels.write_kv import rotate_and_write_kv, write_kv
from tests.kernels.paged_cases import FP8

pytest.importorskip("triton")

TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}


def _caches(kv_heads: int, width: int, block: int, dtype: torch.dtype, token_major: bool) -> tuple[Tensor, Tensor]:
    keys = (
        torch.zeros(5, kv_heads, block, width).transpose(2, 3)
        if token_major
        else torch.zeros(5, kv_heads, width, block)
    )
    return keys.to(dtype), torch.zeros(5, kv_heads, block, width if token_major else -(-width // 16) * 16).to(dtype)


@pytest.mark.parametrize("token_major", [True, False])
@pytest.mark.parametrize("cache_dtype", [torch.float32, torch.bfloat16, FP8])
@pytest.mark.parametrize(("kv_heads", "width", "block"), [(3, 20, 16), (1, 128, 64)])
def test_write_kv_equals_its_definition(
    kv_heads: int, width: int, block: int, cache_dtype: torch.dtype, token_major: bool
) -> None:
    torch.manual_seed(0)
    key, value = torch.randn(2, 7, kv_heads + 2, width)[:, :, :kv_heads] * 300
    slots = torch.randperm(5 * block)[:7].int()
    slots[[2, 6]] = -1
    scales = (0.7, 1.3) if cache_dtype == FP8 else (1.0, 1.0)
    found = {}
    for backend in ("triton", "reference"):
        caches = _caches(kv_heads, width, block, cache_dtype, token_major)
        write_kv(key, value, slots, *caches, *scales, backend)
        found[backend] = torch.cat([c.float().flatten() for c in caches])
    assert torch.equal(found["triton"], found["reference"])
    assert 0 < found["triton"].count_nonzero() <= 2 * 5 * kv_heads * width
    if cache_dtype == FP8:
        assert found["triton"].abs().max() == 448


def test_float8_holds_the_quotient_by_the_scale() -> None:
    for backend in ("triton", "reference"):
        keys, values = _caches(1, 16, 16, FP8, True)
        write_kv(
            torch.full((1, 1, 16), 3.0),
            torch.full((1, 1, 16), 8.0),
            torch.tensor([20], dtype=torch.int32),
            keys,
            values,
            2.0,
            0.25,
            backend,
        )
        assert (keys[1, 0, :, 4].float() == 1.5).all() and (values[1, 0, 4].float() == 32).all()


@pytest.mark.parametrize(
    ("dtype", "cache_dtype", "heads", "kv_heads", "width", "rotary", "norms"),
    [
        (torch.float32, None, 6, 2, 64, 64, "qk"),
        (torch.float32, None, 5, 1, 80, 32, "q"),
        (torch.bfloat16, None, 3, 3, 48, 48, ""),
        (torch.bfloat16, None, 14, 2, 64, 20, "k"),
        (torch.float16, None, 4, 4, 128, 128, "qk"),
        (torch.bfloat16, FP8, 4, 2, 128, 128, "qk"),
    ],
)
@pytest.mark.parametrize("token_major", [True, False])
def test_rotate_and_write_kv_equals_its_definition(
    dtype: torch.dtype,
    cache_dtype: torch.dtype | None,
    heads: int,
    kv_heads: int,
    width: int,
    rotary: int,
    norms: str,
    token_major: bool,
) -> None:
    torch.manual_seed(0)
    tokens, block = 9, 16
    states = torch.randn(tokens, (heads + 2 * kv_heads) * width).to(dtype)
    angles = torch.rand(100, rotary // 2) * 6
    cosine, sine = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
    positions = torch.randint(0, 100, (tokens,), dtype=torch.int32)
    slots = torch.randperm(5 * block)[:tokens].int()
    slots[4] = -1
    weights = [torch.randn(width).to(dtype) if which in norms else None for which in "qk"]
    scales = (0.5, 2.0) if cache_dtype else (1.0, 1.0)
    found = []
    for backend in ("triton", "reference"):
        own, caches = states.clone(), _caches(kv_heads, width, block, cache_dtype or dtype, token_major)
        write: Any = rotate_and_write_kv
        write(own, heads, kv_heads, cosine, sine, positions, slots, *caches, *weights, 1e-6, *scales, backend=backend)
        # A padding token's own states are nobody's.
        found.append([own[slots >= 0], *(c.float() for c in caches)])
    for place, (ours, theirs) in enumerate(zip(*found, strict=True)):
        # Where a rounding to float8 falls on the other side, it is by one unit in its last place.
        tolerance = 0.13 if cache_dtype and place else TOLERANCE[dtype]
        torch.testing.assert_close(ours, theirs, atol=tolerance * 0.5, rtol=tolerance)
    assert torch.equal(found[0][1] == 0, found[1][1] == 0)


@pytest.mark.parametrize("backend", ["triton", "cpu", "reference"])
def test_marks_instruction_tokens_and_leaves_padding_alone(backend: str) -> None:
    torch.manual_seed(0)
    states = torch.randn(5, 4 * 16)
    keys, values = _caches(1, 16, 16, torch.float32, False)
    mask = torch.full((2, 32), 7, dtype=torch.uint8)
    slots = torch.tensor([3, 4, -1, 17, -1], dtype=torch.int32)
    rotate_and_write_kv(
        states,
        2,
        1,
        torch.ones(32, 16),
        torch.zeros(32, 16),
        torch.tensor([0, 9, 1, 31, 2], dtype=torch.int32),
        slots,
        keys,
        values,
        segments=torch.tensor([1, 2, 1, 1, 3], dtype=torch.uint8),
        mask=mask,
        sequence=torch.tensor([0, 0, 0, 1, 1], dtype=torch.int32),
        backend=backend,
    )
    expected = torch.full((2, 32), 7, dtype=torch.uint8)
    expected[0, 0], expected[0, 9], expected[1, 31] = 1, 0, 1
    assert torch.equal(mask, expected)
    assert keys.count_nonzero() == values.count_nonzero() == 3 * 16
    assert torch.equal(keys[1, 0, :, 1], states[3, 32:48]) and torch.equal(values[0, 0, 3], states[0, 48:])


@pytest.mark.parametrize("backend", ["triton", "cpu"])
def test_padding_writes_nothing_at_all(backend: str) -> None:
    keys, values = _caches(1, 16, 16, torch.float32, False)
    slots = torch.full((12,), -1, dtype=torch.int32)
    zeros = torch.zeros(12, dtype=torch.int32)
    rotate_and_write_kv(
        torch.randn(12, 48), 1, 1, torch.ones(1, 16), torch.ones(1, 16), zeros, slots, keys, values, backend=backend
    )
    write_kv(torch.randn(12, 1, 16), torch.randn(12, 1, 16), slots, keys, values, backend=backend)
    assert not keys.any() and not values.any()
