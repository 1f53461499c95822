"""What a run leaves behind for people: memory before it, curves, card and report after it."""
