"""Training examples and their sources."""
