"""Natural language for checks: language identification, sentence boundaries, words."""
