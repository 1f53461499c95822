"""Compiling the Triton kernels for GPUs that are not here: what they need, and how often they compile."""
