"""Errors of keys and signatures: what is wrong, and what to do."""

from __future__ import annotations


class SigningError(ValueError):
    """A key or a signature cannot be used. The message never holds anything of a secret key."""
