"""Judging answers by a model, kept apart from what programs can verify."""
