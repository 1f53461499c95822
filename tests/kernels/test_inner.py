"""Functions that only workers call have no machine code of their own, and are called from nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

numba = pytest.importorskip("numba", reason="kernels for processors need numba")
from ift_kernels.cpu_simd.inner import inlined, inner  # noqa: E402


def _half(x: float) -> float:
    return x / 2


@pytest.mark.parametrize("decorate", [inner, inlined])
def test_it_is_compiled_into_what_calls_it(decorate: Any) -> None:
    half = decorate(_half)

    @numba.njit  # type: ignore[untyped-decorator]
    def outer(x: float) -> float:
        return half(x) + 1.0  # type: ignore[no-any-return]

    assert outer(4.0) == 3.0 and outer(numba.float32(5.0)) == 3.5
    with pytest.raises(KeyError):
        half(4.0)
