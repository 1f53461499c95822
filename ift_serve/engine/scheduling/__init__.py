"""The scheduler: which sequences compute in each step, in fair order among callers. Pure Python."""
