"""A gated addition after a decoder layer, for rows of many gates."""

from ift_kernels.gated_add.api import gated_add
from ift_kernels.gated_add.types import GateGroup, Gates, GateTerms

__all__ = ["GateGroup", "GateTerms", "Gates", "gated_add"]
