"""Weights that a GGUF file packs in few bits, found again in the model that transformers made of it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ift_kernels.quantized_linear import QuantizedWeight, pack_codes
from ift_serve.modeling.checkpoint.gguf_file import GgufCodes, gguf_codes
from ift_serve.modeling.decoder.quantization import QuantizedWeights

_PANEL = 16


class _RowHashes:
    """Of matrices with float32 rows of one width: equal rows have equal hashes."""

    def __init__(self, width: int) -> None:
        odd = np.random.default_rng(width).integers(1, 2**63, width, dtype=np.uint64) | np.uint64(1)
        self._factors = odd

    def __call__(self, matrix: NDArray[np.float32]) -> NDArray[np.uint64]:
        bits = np.ascontiguousarray(matrix).view(np.uint32)
        hashes = np.empty(len(bits), dtype=np.uint64)
        for first in range(0, len(bits), 4096):
            part = bits[first : first + 4096].astype(np.uint64)
            hashes[first : first + 4096] = ((part + (part << np.uint64(17))) * self._factors).sum(-1, dtype=np.uint64)
        return hashes


def packed_weights(model: Any, file: Path) -> QuantizedWeights:
    """The file's codes for every linear layer, head and embeddings whose rows are the file's, in whatever order.

    transformers renames tensors and reorders rows by rules of each architecture. None of them is known here: a matrix
    is found by its rows, all of which must be equal, bit for bit. What is not found stays as transformers made it.
    Raises OSError.
    """
    found = QuantizedWeights()
    modules: dict[tuple[int, int], list[Any]] = defaultdict(list)
    embeddings = model.get_input_embeddings()
    paths = {}
    for path, module in model.named_modules():
        if type(module) is nn.Linear or module is embeddings:
            modules[tuple(module.weight.shape)].append(module)
            paths[module] = path
    hashes: dict[int, NDArray[np.uint64]] = {}
    for stored in gguf_codes(file):
        if not _finite(stored) or stored.codes.shape[0] % _PANEL:
            continue
        row_hashes = _RowHashes(stored.codes.shape[1])
        dense = stored.dense()
        own = row_hashes(dense)
        for module in modules[stored.codes.shape]:
            if found.get(module) is not None:
                continue
            key = id(module.weight)
            if key not in hashes:
                hashes[key] = row_hashes(module.weight.detach().numpy())
            weight = _in_order(stored, dense, own, module.weight, hashes[key])
            if weight is not None:
                found.keep(module, weight)
    found.plain = [path for module, path in paths.items() if found.get(module) is None]
    return found


def _finite(stored: GgufCodes) -> bool:
    return bool(np.isfinite(stored.scales).all() and (stored.minimums is None or np.isfinite(stored.minimums).all()))


def _in_order(
    stored: GgufCodes,
    dense: NDArray[np.float32],
    own: NDArray[np.uint64],
    weight: Tensor,
    wanted: NDArray[np.uint64],
) -> QuantizedWeight | None:
    """The stored codes with their rows in the order of ``weight``; None where the rows are others."""
    by_hash, order = np.argsort(own, kind="stable"), np.argsort(wanted, kind="stable")
    if not np.array_equal(own[by_hash], wanted[order]):
        return None
    rows = np.empty_like(by_hash)
    rows[order] = by_hash
    if not np.array_equal(dense[rows], weight.detach().numpy()):
        return None
    minimums = None if stored.minimums is None else torch.from_numpy(stored.minimums[rows])
    scales = torch.from_numpy(stored.scales[rows])
    return pack_codes(torch.from_numpy(stored.codes[rows]), scales, minimums, stored.bits)
