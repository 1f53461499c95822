"""Many adapters in one flat batch: each prepared once, found by its slot, applied to its own rows."""
