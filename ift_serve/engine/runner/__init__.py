"""Runs the model on a step's batch."""
