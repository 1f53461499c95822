"""One thread at a time builds a model.

While it does, transformers replaces methods of its classes and torch's default dtype, and puts back what it found. Two
threads that overlap put back each other's replacements, and later models of the process then have no tied weights.
"""

from __future__ import annotations

import threading

model_construction = threading.RLock()
"""Held around ``from_pretrained``, ``from_config`` and ``_from_config``."""
