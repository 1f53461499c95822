"""Reports of a run: memory before it, curves, card and report after it."""
