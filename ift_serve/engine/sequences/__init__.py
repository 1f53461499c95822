"""Sequences, what a step computes of them, and their prompts. Pure Python, below cache and scheduling."""
