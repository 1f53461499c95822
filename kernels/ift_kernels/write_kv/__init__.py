"""Rotary embedding of queries and keys, and the write of keys and values into the paged cache."""

from ift_kernels.write_kv.api import rotate_and_write_kv, write_kv

__all__ = ["rotate_and_write_kv", "write_kv"]
