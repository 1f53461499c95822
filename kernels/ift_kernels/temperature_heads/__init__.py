"""Temperatures that heads of many adapters predict for the rows of a batch."""

from ift_kernels.temperature_heads.api import HeadRows, HeadTable, temperature_heads

__all__ = ["HeadRows", "HeadTable", "temperature_heads"]
