"""Divisions by 0 in the CPU's kernels give what IEEE 754 says, in every thread; none raises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numba import njit

from ift_kernels.cpu_simd import openmp
from ift_kernels.cpu_simd.simd import FP32, load_i64, load_one, store_one

_NEXT, _NUMBERS, _QUOTIENTS, _COUNT = range(4)


@njit  # type: ignore[untyped-decorator]
def _quotient(numbers: Any, index: Any) -> Any:
    return load_one(FP32, numbers, 2 * index) / load_one(FP32, numbers, 2 * index + 1)


@openmp.worker(torch.float32)
def _divide(data: Any) -> None:
    args = openmp.address_of(data)
    while True:
        index = openmp.take(args + 8 * _NEXT)
        if index >= load_i64(args, _COUNT):
            return
        store_one(FP32, load_i64(args, _QUOTIENTS), index, _quotient(load_i64(args, _NUMBERS), index))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_division_by_nothing_is_infinite_or_no_number_and_ends(threads: int) -> None:
    numbers = np.array([[1, 0], [-1, 0], [0, 0], [0, 3], [1, 3], [1e-38, 1e38]] * 50, dtype=np.float32)
    quotients = np.full(len(numbers), 7, dtype=np.float32)
    arguments = np.array([0, numbers.ctypes.data, quotients.ctypes.data, len(numbers)], dtype=np.int64)
    openmp.run(openmp.entry_point(), openmp.compiled(_divide), arguments, threads)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(quotients, numbers[:, 0] / numbers[:, 1])
