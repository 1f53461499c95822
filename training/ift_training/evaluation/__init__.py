"""Answers during training, and how the checkers judge them."""
