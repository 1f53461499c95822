"""One temperature for all logits, by which confidences are read (Guo et al. 2017, section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ift_training.data.encode import Encoder, EncodingError
from ift_training.temperature.frozen_model import FrozenModel
from ift_training.temperature.prompts import TaskPrompt

_ROWS = 256
_STEPS, _PRECISION = 50, 1e-7
_LEAST, _MOST = 0.02, 50.0
"""Between which an inverse temperature is looked for."""

Rows = Callable[[], Iterator[tuple[Tensor, Tensor]]]
"""Gives logits ``[n, V]`` and targets ``[n]`` of some tokens at a time, from the beginning each time it is called."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """Tokens by confidence, in bins of equal width: how many, how confident and how often right; ``error`` is ECE."""

    counts: list[int]
    confidence: list[float]
    accuracy: list[float]
    error: float
    likelihood: float
    """Mean negative log-likelihood, nats a token."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The fitted temperature, with the reliability of tokens that it was not fitted on, without and with it.

    Likelihood is what it is fitted by and ECE what it is for, and on other tokens one may fall while the other rises:
    a model that is calibrated already is made no better by what a sample's noise says.
    """

    fitted: float
    tokens: int
    before: Reliability
    after: Reliability

    @property
    def is_kept(self) -> bool:
        """Whether the fitted temperature makes both better on tokens that it was not fitted on."""
        return self.after.likelihood < self.before.likelihood and self.after.error < self.before.error

    @property
    def temperature(self) -> float | None:
        """What confidences are to be read by; None: by the logits as they are."""
        return self.fitted if self.is_kept else None


def fit_temperature(rows: Rows) -> float:
    """The T that makes ``mean -log softmax(l / T)_y`` least.

    It is convex in 1/T, with the derivative ``mean E[l] - l_y`` and the second ``mean Var[l]``: Newton's steps, halved
    towards the bracket of the root where they would leave it.
    """
    low, high, inverse = _LEAST, _MOST, 1.0
    for _ in range(_STEPS):
        slope, curvature = _derivatives(rows, inverse)
        if slope > 0:
            high = inverse
        else:
            low = inverse
        newton = inverse - slope / curvature if curvature > 0 else math.inf
        following = newton if low < newton < high else (low + high) / 2
        if abs(following - inverse) < _PRECISION * inverse:
            break
        inverse = following
    return 1 / inverse


def _derivatives(rows: Rows, inverse: float) -> tuple[float, float]:
    slope = curvature = 0.0
    count = 0
    for logits, targets in rows():
        shifted = logits.double() - logits.double().amax(1, keepdim=True)
        probs = torch.softmax(shifted * inverse, 1)
        mean = (probs * shifted).sum(1)
        slope += float((mean - shifted.gather(1, targets[:, None])[:, 0]).sum())
        curvature += float(((probs * shifted**2).sum(1) - mean**2).sum())
        count += len(targets)
    return slope / count, curvature / count


def reliability(rows: Rows, temperature: float, bins: int) -> Reliability:
    """Confidence ``max softmax(l / T)`` against how often the most probable token is the target.

    The error is ECE (Guo et al. 2017, equation 3): ``sum_b n_b / n |accuracy_b - confidence_b|``.
    """
    sums = torch.zeros(3, bins, dtype=torch.float64)
    likelihood = 0.0
    for logits, targets in rows():
        log_probs = torch.log_softmax(logits.double() / temperature, 1)
        top = log_probs.max(1)
        confidence = top.values.exp()
        place = (confidence * bins).ceil().long().clamp(1, bins) - 1
        right = (top.indices == targets).double()
        likelihood -= float(log_probs.gather(1, targets[:, None]).sum())
        for line, values in enumerate((torch.ones_like(right), confidence, right)):
            sums[line].index_add_(0, place, values)
    counts, total = sums[0], float(sums[0].sum())
    filled = counts.clamp_min(1)
    error = float((sums[2] - sums[1]).abs().sum()) / total
    return Reliability(
        [int(c) for c in counts], (sums[1] / filled).tolist(), (sums[2] / filled).tolist(), error, likelihood / total
    )


def calibrate(
    model: FrozenModel, encoder: Encoder, prompts: Sequence[TaskPrompt], tokens: int, bins: int
) -> Calibration | None:
    """Fit on the reference answers of one half of the prompts and judge on the other's; None without tokens.

    tokens: about so many in all; those that a training's loss would see.
    """
    halves = [_targets(model, encoder, prompts[half::2], tokens // 2) for half in (0, 1)]
    if any(not len(targets) for _, targets in halves):
        return None

    def rows_of(half: int) -> Rows:
        hidden, targets = halves[half]

        def rows() -> Iterator[tuple[Tensor, Tensor]]:
            for states, wanted in zip(torch.split(hidden, _ROWS), torch.split(targets, _ROWS), strict=True):
                yield model.logits(states).cpu(), wanted

        return rows

    fitted = fit_temperature(rows_of(0))
    judged = rows_of(1)
    return Calibration(fitted, len(halves[1][1]), reliability(judged, 1.0, bins), reliability(judged, fitted, bins))


def _targets(model: FrozenModel, encoder: Encoder, prompts: Sequence[TaskPrompt], most: int) -> tuple[Tensor, Tensor]:
    """Hidden states ``[n, d]`` before the targets of reference answers, and these ``[n]``; at most so many."""
    sequences, masks, total = list[list[int]](), list[bytes](), 0
    for prompt in prompts:
        if total >= most:
            break
        try:
            example = encoder.encode(prompt.record)
        except EncodingError:
            continue
        sequences.append(example.input_ids)
        masks.append(example.labels_mask)
        total += sum(example.labels_mask)
    hidden, targets = [], []
    for ids, mask, states in zip(sequences, masks, model.hidden_states(sequences), strict=True):
        places = [place for place, seen in enumerate(mask) if seen]
        hidden.append(states[torch.tensor(places) - 1])
        targets.append(torch.tensor([ids[place] for place in places]))
    if not hidden:
        return torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64)
    return torch.cat(hidden)[:most], torch.cat(targets)[:most]
