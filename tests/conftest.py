"""What all tests share."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

# What is imported and collected stays: looking for garbage in it again and again takes longer than all of it.
gc.disable()

# Before torch is imported: idle threads must sleep, or small operations of two processes starve one another.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Triton kernels run in its interpreter here: the decorator reads this when a kernel is defined.
os.environ["TRITON_INTERPRET"] = "1"

# The same examples everywhere and no verdict on the machine's speed; `--hypothesis-profile search` looks for new ones.
_SLOW_MACHINE = (HealthCheck.too_slow,)
# They are the same ones each time, so more of them find what they have always found. Tests of rare states ask for more.
settings.register_profile(
    "suite", max_examples=50, deadline=None, derandomize=True, suppress_health_check=_SLOW_MACHINE
)
settings.register_profile("search", deadline=None, suppress_health_check=_SLOW_MACHINE)
settings.load_profile("suite")

try:
    from tests.support.interpreter import install
except ImportError:  # Triton is there on Linux only
    pass
else:
    install()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """From here on garbage is looked for in what tests make, and in nothing else."""
    gc.freeze()
    gc.enable()
