"""Which tokens a step drafts: guesses of what will be drawn, that the step then checks. Pure Python."""
