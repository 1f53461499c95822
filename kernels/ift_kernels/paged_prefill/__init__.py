"""Causal attention of prompt chunks over a paged cache."""

from ift_kernels.paged_prefill.api import paged_prefill
from ift_kernels.paged_prefill.plan import PrefillPlan, prefill_plan

__all__ = ["PrefillPlan", "paged_prefill", "prefill_plan"]
