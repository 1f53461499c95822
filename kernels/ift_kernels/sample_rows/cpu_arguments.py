"""Where the CPU kernel of the draw finds its arguments: one int64 each, an address or a size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ift_kernels.sample_rows.types import RowParameters

NEXT, WORKER, LOGITS, SCRATCH, TOKENS, STATISTICS, PROBABILITIES, ROWS, SIZE, PADDED, STRIDE = range(11)
MEASURES, TOP_IDS, TEMPERATURE, TOP_P, MIN_P, TOP_K, SEEDS, STEPS, TARGETS = range(11, 20)
OFFSETS, IDS, GENERATED, BIAS, REPETITION, PRESENCE, FREQUENCY = range(20, 27)
BITS, MASK_OF_ROW, WORDS, SIGMA, P_LESS, TOP_H, NEAR, BUFFERS, WANTED, PROCESSED, UNKNOWN, SLOTS = range(27, 39)


def addresses(*tensors: Tensor) -> list[int]:
    """Of tensors' first elements."""
    return [tensor.data_ptr() for tensor in tensors]


def fill_parameters(arguments: NDArray[np.int64], p: RowParameters) -> None:
    """The addresses of everything that varies by row, 0 for what is absent."""
    arguments[TEMPERATURE:OFFSETS] = addresses(p.temperature, p.top_p, p.min_p, p.top_k, p.seeds, p.steps, p.targets)
    if (a := p.adjustments) is not None:
        arguments[OFFSETS:BITS] = addresses(
            a.offsets, a.token_ids, a.generated, a.bias, a.repetition, a.presence, a.frequency
        )
    if (m := p.masks) is not None:
        arguments[BITS:SIGMA] = (*addresses(m.bits, m.of_row), m.bits.shape[1])
    if (t := p.truncations) is not None:
        arguments[SIGMA:TOP_H] = addresses(t.top_n_sigma, t.p_less)
        arguments[TOP_H] = 0 if t.top_h is None else t.top_h.data_ptr()
    if p.near is not None:
        arguments[NEAR] = p.near.data_ptr()
    if p.processed is not None:
        arguments[WANTED] = p.processed.data_ptr()
