"""Temperatures that heads of many adapters predict for the rows of a batch."""

from ift_kernels.temperature_heads.api import temperature_heads
from ift_kernels.temperature_heads.types import HeadRows, HeadTable

__all__ = ["HeadRows", "HeadTable", "temperature_heads"]
