"""How two computations compare that round what is between their layers."""

from __future__ import annotations

import torch
from torch import Tensor


def assert_close_but_for_steps(found: Tensor, expected: Tensor) -> None:
    """Log-probabilities ``[L]`` of one prompt: the same, until somewhere a value is rounded to another step.

    A sum that differs in its last bit is rounded to the neighbouring step once in some ten thousand times; what follows
    in the prompt then differs by what a step is worth. Unrounded inputs would differ everywhere.
    """
    differences = (found - expected).abs()
    assert torch.quantile(differences, 0.15) < 1e-4, differences
    assert differences.norm() < 0.02 * expected.norm(), differences
