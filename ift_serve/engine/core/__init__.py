"""The engine core: requests, sequences, strategies, steps. Pure Python."""
