"""The linear layers of a decoder that adapters can change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdaptableLinear:
    """One linear layer as a decoder computes it, which may be several modules of the model in one product.

    paths: the modules, in the order of their outputs; in_features: width of the common input; columns: bounds of the
    modules' outputs, one more than there are modules.
    """

    paths: tuple[str, ...]
    in_features: int
    columns: tuple[int, ...]
