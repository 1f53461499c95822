"""Paged decode in Triton's interpreter, and its definition, against dense float64 attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ift_kernels.device import DeviceProperties, assume
from ift_kernels.instruction import InstructionBias
from ift_kernels.paged_decode import paged_decode
from tests.kernels.paged_cases import FP8, Sequences, assert_close, attend, make_bias, make_sequences, poisoned_empty

pytest.importorskip("triton")
pytestmark = pytest.mark.usefixtures(poisoned_empty.__name__)

LENGTHS = [130, 0, 1, 15, 16, 17, 31, 65, 200]


def _run(
    query: torch.Tensor,
    cached: Sequences,
    rows: list[int],
    seen: list[int],
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    bias: InstructionBias | None = None,
    scales: tuple[float, float] = (1.0, 1.0),
    backend: str = "triton",
    multiprocessors: int = 2,
) -> torch.Tensor:
    with assume(DeviceProperties(multiprocessors, 90)):
        return paged_decode(
            query,
            cached.key_cache,
            cached.value_cache,
            cached.block_tables,
            torch.tensor(rows, dtype=torch.int32),
            torch.tensor(seen, dtype=torch.int32),
            max(seen),
            scale,
            window,
            softcap,
            None,
            bias,
            *scales,
            backend,
        )


@pytest.mark.parametrize(
    ("dtype", "cache_dtype", "heads", "kv_heads", "width", "block", "window", "softcap", "biased"),
    [
        (torch.float32, None, 4, 2, 64, 16, 0, 0.0, False),
        (torch.float32, None, 6, 2, 80, 16, 40, 30.0, True),
        (torch.float32, None, 3, 3, 32, 64, 1, 0.0, False),
        (torch.float32, None, 7, 1, 48, 32, 0, 5.0, True),
        (torch.bfloat16, None, 8, 1, 128, 16, 0, 0.0, True),
        (torch.bfloat16, None, 4, 2, 256, 32, 100, 0.0, False),
        (torch.float16, None, 6, 1, 96, 48, 17, 50.0, True),
        (torch.bfloat16, FP8, 6, 2, 48, 32, 0, 0.0, True),
        (torch.float16, FP8, 4, 4, 64, 16, 33, 20.0, False),
    ],
)
@pytest.mark.parametrize("backend", ["triton", "reference"])
def test_equals_dense_attention(
    backend: str,
    dtype: torch.dtype,
    cache_dtype: torch.dtype | None,
    heads: int,
    kv_heads: int,
    width: int,
    block: int,
    window: int,
    softcap: float,
    biased: bool,
) -> None:
    torch.manual_seed(0)
    cached = make_sequences(LENGTHS, kv_heads, width, block, cache_dtype or dtype)
    query = torch.randn(len(LENGTHS), heads, width).to(dtype)
    bias = make_bias(cached, heads) if biased else None
    scales = (0.5, 1.5) if cache_dtype else (1.0, 1.0)
    rows, scale = list(range(len(LENGTHS))), width**-0.5
    output = _run(query, cached, rows, LENGTHS, scale, window, softcap, bias, scales, backend)
    expected = [attend(query[r], cached, r, LENGTHS[r], scale * scales[0], window, softcap, bias) for r in rows]
    assert_close(output, torch.stack(expected) * scales[1])


def test_rows_may_share_a_sequence_and_lie_apart() -> None:
    torch.manual_seed(1)
    cached = make_sequences([20, 90], 2, 32, 16, torch.float32)
    states = torch.randn(5, 9, 32)
    query, rows, seen = states[:, :6], [1, 1, 0, 1, 0], [90, 1, 20, 33, 16]
    bias = make_bias(cached, 6)
    output = _run(query, cached, rows, seen, 0.2, bias=bias)
    assert_close(output, torch.stack([attend(query[i], cached, rows[i], seen[i], 0.2, bias=bias) for i in range(5)]))


def test_tokens_before_the_window_are_not_read() -> None:
    torch.manual_seed(2)
    lengths = [130, 16, 100, 3]
    cached = make_sequences(lengths, 1, 32, 16, torch.float32, forgotten=20)
    query = torch.randn(4, 2, 32)
    output = _run(query, cached, [0, 1, 2, 3], lengths, 0.2, window=20)
    assert_close(output, torch.stack([attend(query[i], cached, i, lengths[i], 0.2, 20) for i in range(4)]))


@pytest.mark.parametrize("multiprocessors", [1, 3, 12])
def test_a_long_row_among_short_ones_is_split_for_any_number_of_multiprocessors(multiprocessors: int) -> None:
    torch.manual_seed(3)
    # Up to 19 splits, more than are merged at once, and scores whose exponentials overflow.
    lengths = [5, 1200, 0, 64]
    cached = make_sequences(lengths, 1, 256, 64, torch.bfloat16)
    query = torch.randn(4, 3, 256).bfloat16()
    output = _run(query, cached, [0, 1, 2, 3], lengths, 4.0, multiprocessors=multiprocessors)
    assert_close(output, torch.stack([attend(query[i], cached, i, lengths[i], 4.0) for i in range(4)]))


def test_rows_without_keys_are_zero_and_no_rows_are_no_output() -> None:
    cached = make_sequences([4, 4], 1, 16, 16, torch.float32)
    assert not _run(torch.randn(2, 2, 16), cached, [0, 1], [0, 0], 0.2).any()
    with assume(DeviceProperties(2, 90)):
        none = torch.zeros(0, dtype=torch.int32)
        output = paged_decode(
            torch.randn(0, 2, 16),
            cached.key_cache,
            cached.value_cache,
            cached.block_tables,
            none,
            none,
            0,
            0.2,
            backend="triton",
        )
    assert output.shape == (0, 2, 16)


def test_many_rows_are_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    from ift_kernels.paged_decode import triton as implementation

    monkeypatch.setattr(implementation, "_MANY_ROWS", 3)
    torch.manual_seed(4)
    lengths = [40, 0, 150, 7]
    cached = make_sequences(lengths, 2, 32, 16, torch.float32)
    query = torch.randn(4, 4, 32)
    output = _run(query, cached, [0, 1, 2, 3], lengths, 0.2)
    assert_close(output, torch.stack([attend(query[i], cached, i, lengths[i], 0.2) for i in range(4)]))


def test_the_grid_is_bounded_by_what_tables_can_hold() -> None:
    from ift_kernels.paged_decode.choices import split_capacity

    one_wave, extra, items = split_capacity(rows=64, kv_heads=8, slots=396, table_tiles=512)
    assert (one_wave, extra, items) == (50, 200, 264)
    assert split_capacity(rows=1, kv_heads=8, slots=396, table_tiles=16)[2] == 16


def test_dtypes_without_a_cpu_kernel_run_as_the_reference() -> None:
    torch.manual_seed(5)
    cached = make_sequences([20], 1, 32, 16, FP8)
    query = torch.randn(1, 2, 32).half()
    output = _run(query, cached, [0], [20], 0.2, backend="auto")
    assert torch.equal(output, _run(query, cached, [0], [20], 0.2, backend="reference"))


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=5),
    group=st.integers(1, 8),
    kv_heads=st.integers(1, 2),
    width=st.sampled_from([32, 40, 64, 112]),
    block=st.sampled_from([16, 32, 64]),
    window=st.sampled_from([0, 1, 16, 100]),
    multiprocessors=st.integers(1, 8),
    seed=st.integers(0, 1000),
)
def test_any_shape(
    lengths: list[int], group: int, kv_heads: int, width: int, block: int, window: int, multiprocessors: int, seed: int
) -> None:
    torch.manual_seed(seed)
    cached = make_sequences(lengths, kv_heads, width, block, torch.float32, forgotten=window)
    query = torch.randn(len(lengths), group * kv_heads, width)
    bias, rows = make_bias(cached, group * kv_heads), list(range(len(lengths)))
    output = _run(query, cached, rows, lengths, 0.2, window, 0.0, bias, multiprocessors=multiprocessors)
    expected = [attend(query[r], cached, r, lengths[r], 0.2, window, 0.0, bias) for r in rows]
    assert_close(output, torch.stack(expected))
