"""Gathers what the rows of a step ask of the sampling kernel, one array a parameter."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ift_kernels.sample_rows import RowParameters, SparseAdjustments, TokenMasks, Truncations
from ift_serve.engine.protocol.generate import SamplingParams
from ift_serve.engine.sequences.adjusted_tokens import AdjustedTokens, is_adjusted
from ift_serve.engine.sequences.probability_average import ProbabilityAverage
from ift_serve.engine.sequences.step import SamplingRow, TokenMask

_GREEDY = SamplingParams(temperature=0.0)
_NO_TARGET = -1.0


def pack_parameters(rows: list[SamplingRow | None], targets: list[int]) -> RowParameters:
    """One entry a row; ``rows[i]`` is None where ``targets[i]`` is a token to score (else -1).

    The temperature is each row's own; what chooses another puts it in its place. What no row uses is None.
    """
    count = len(rows)
    floats = np.zeros((3, count), dtype=np.float32)
    integers = np.zeros((2, count), dtype=np.int32)
    seeds = np.zeros(count, dtype=np.int64)
    floats[1] = 1.0
    for index, row in enumerate(rows):
        if row is not None and row.temperature > 0.0:
            params = row.params
            floats[:, index] = (row.temperature, params.top_p, params.min_p)
            integers[:, index] = (params.top_k, row.step)
            seeds[index] = _signed(row.seed)
    truncations, near = _truncations(rows), _near(rows)
    plain = bool((floats[1] < 1.0).any() or floats[2].any() or integers[0].any())
    return RowParameters(
        truncated=plain or truncations is not None or near is not None,
        temperature=torch.from_numpy(floats[0]),
        top_p=torch.from_numpy(floats[1]),
        min_p=torch.from_numpy(floats[2]),
        top_k=torch.from_numpy(integers[0]),
        seeds=torch.from_numpy(seeds),
        steps=torch.from_numpy(integers[1]),
        targets=torch.tensor(targets, dtype=torch.int32),
        adjustments=_adjustments(rows),
        masks=_masks(rows),
        truncations=truncations,
        near=near,
        processed=_processed(rows),
    )


def _adjusted(row: SamplingRow) -> AdjustedTokens:
    if row.adjusted is None:
        row.adjusted = AdjustedTokens(row.params, row.history[: row.prompt_length])
    return row.adjusted


def _adjustments(rows: list[SamplingRow | None]) -> SparseAdjustments | None:
    entries = [
        _adjusted(row).entries(row.history, row.drafted) if row is not None and is_adjusted(row.params) else None
        for row in rows
    ]
    found = [entry for entry in entries if entry is not None]
    if not found:
        return None
    lengths = [0, *(0 if entry is None else len(entry[0]) for entry in entries)]
    ids, generated, bias = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*found, strict=True))
    params = [_GREEDY if row is None else row.params for row in rows]
    return SparseAdjustments(
        torch.from_numpy(np.cumsum(lengths, dtype=np.int32)),
        ids,
        generated,
        bias,
        torch.tensor([p.repetition_penalty for p in params], dtype=torch.float32),
        torch.tensor([p.presence_penalty for p in params], dtype=torch.float32),
        torch.tensor([p.frequency_penalty for p in params], dtype=torch.float32),
    )


def _masks(rows: list[SamplingRow | None]) -> TokenMasks | None:
    """A mask that several rows share, being one object, is there once."""
    found = dict[int, tuple[int, TokenMask]]()
    of_row = np.full(len(rows), -1, dtype=np.int32)
    for index, row in enumerate(rows):
        if row is not None and row.mask is not None:
            of_row[index], _ = found.setdefault(id(row.mask), (len(found), row.mask))
    if not found:
        return None
    bits = np.stack([mask.words() for _, mask in found.values()])
    return TokenMasks(torch.from_numpy(bits), torch.from_numpy(of_row))


def _truncations(rows: list[SamplingRow | None]) -> Truncations | None:
    used = [
        (index, row.params)
        for index, row in enumerate(rows)
        if row is not None and (row.params.top_n_sigma or row.params.p_less or row.params.top_h)
    ]
    if not used:
        return None
    values = np.zeros((3, len(rows)), dtype=np.float32)
    for index, params in used:
        values[:, index] = (params.top_n_sigma, params.p_less, params.top_h)
    sigma, p_less, top_h = (torch.from_numpy(part) for part in values)
    return Truncations(sigma, p_less, top_h if values[2].any() else None)


def _near(rows: list[SamplingRow | None]) -> Tensor | None:
    used = [
        (index, row, row.params.target_probability)
        for index, row in enumerate(rows)
        if row is not None and row.params.target_probability is not None and row.temperature > 0.0
    ]
    if not used:
        return None
    values = np.full(len(rows), _NO_TARGET, dtype=np.float32)
    for index, row, target in used:
        if row.average is None:
            row.average = ProbabilityAverage(target)
        values[index] = row.average.wanted(row.history)
    return torch.from_numpy(values)


def _processed(rows: list[SamplingRow | None]) -> Tensor | None:
    wanted = [row is not None and row.params.processed_log_probs for row in rows]
    return torch.tensor(wanted, dtype=torch.int32) if any(wanted) else None


def _signed(seed: int) -> int:
    """The low 64 bits of a seed as a signed integer."""
    seed &= (1 << 64) - 1
    return seed - (1 << 64) if seed >= 1 << 63 else seed
