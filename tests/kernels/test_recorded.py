"""Launches that are run again, against the same computation done anew."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ift_kernels.bf16_linear import PackedWeight, bf16_linear, pack_weight
from ift_kernels.cpu_simd.recorded import Arena, NotRecordableError, record
from ift_kernels.fused_add_rms_norm import fused_add_rms_norm
from ift_kernels.silu_and_mul import silu_and_mul

WIDTH, INNER = 64, 160


def _packed(outputs: int, inputs: int) -> PackedWeight:
    packed = pack_weight((torch.randn(outputs, inputs) / inputs**0.5).bfloat16().float())
    assert packed is not None
    return packed


@pytest.fixture
def layers() -> Callable[[Tensor], Tensor]:
    """Three layers of a feed-forward network, which add to their input in place."""
    torch.manual_seed(0)
    weights = [(_packed(2 * INNER, WIDTH), _packed(WIDTH, INNER), torch.rand(WIDTH) + 0.5) for _ in range(3)]

    def compute(hidden: Tensor) -> Tensor:
        delta = None
        for up, down, norm in weights:
            normal = fused_add_rms_norm(hidden, delta, norm, 1e-5, "cpu")
            delta = bf16_linear(silu_and_mul(bf16_linear(normal, up), "cpu"), down)
        return fused_add_rms_norm(hidden, delta, weights[0][2], 1e-5, "cpu")

    return compute


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 3, 9, 40])
def test_run_again_they_compute_what_the_memory_holds_by_then(
    rows: int, threads: int, layers: Callable[[Tensor], Tensor]
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        buffer = torch.empty(rows, WIDTH)
        first = torch.randn(rows, WIDTH)
        buffer.copy_(first)
        result, launches = record(lambda: layers(buffer), Arena())
        assert torch.equal(result, layers(first.clone()))
        for _ in range(20):
            given = torch.randn(rows, WIDTH)
            buffer.copy_(given)
            launches()
            assert torch.equal(result, layers(given.clone()))
    finally:
        torch.set_num_threads(before)


def test_recordings_share_memory_and_not_with_a_layer_of_their_own(layers: Callable[[Tensor], Tensor]) -> None:
    arena, buffers = Arena(), {rows: torch.randn(rows, WIDTH) for rows in (8, 5, 2)}
    kept = {}
    for rows, buffer in buffers.items():
        result, launches = record(lambda buffer=buffer: layers(buffer), arena)  # type: ignore[misc]
        kept[rows] = arena.borrowed(result), launches
        if rows == 8:
            size = arena.nbytes
    # One layer's tensors and not three's, in blocks of powers of two, and smaller ones for fewer rows at most as many.
    layer = 4 * 8 * (WIDTH + 2 * INNER + INNER + WIDTH)
    assert layer < size < 2.5 * layer and arena.nbytes < 2 * size
    for rows in (2, 8, 5, 8, 2):
        given = torch.randn(rows, WIDTH)
        buffers[rows].copy_(given)
        result, launches = kept[rows]
        launches()
        assert torch.equal(result, layers(given.clone()))


def test_memory_is_aligned_and_comes_back_when_nobody_holds_a_part_of_it() -> None:
    arena = Arena()
    first = arena.tensor(torch.empty(5, 24))
    assert first.shape == (5, 24) and first.is_contiguous() and first.data_ptr() % 64 == 0
    place, part = first.data_ptr(), first[2:4]
    del first
    second = arena.tensor(torch.empty(5, 24))
    assert second.data_ptr() != place
    del part
    assert arena.tensor(torch.empty(2, 50)).data_ptr() == place  # 400 bytes, of the same power of two
    transposed = torch.empty(3, 7, dtype=torch.bfloat16).t()
    assert arena.tensor(transposed).stride() == transposed.stride()


@pytest.mark.parametrize(
    "more",
    [lambda x: x + 1, lambda x: x.reshape(-1, 2).t().reshape(-1), lambda x: x.to(torch.bfloat16), lambda x: x.clone()],
    ids=["sum", "copying reshape", "another dtype", "copy"],
)
def test_what_launching_again_would_leave_out_is_refused(
    more: Callable[[Tensor], Tensor], layers: Callable[[Tensor], Tensor]
) -> None:
    buffer = torch.randn(4, WIDTH)
    with pytest.raises(NotRecordableError, match="is not one of this package's CPU kernels"):
        record(lambda: more(layers(buffer)), Arena())
    with pytest.raises(NotRecordableError, match="launches nothing"):
        record(lambda: buffer[1:], Arena())
