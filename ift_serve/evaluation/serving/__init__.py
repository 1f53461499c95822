"""Requests of an evaluation to a server, and their outcomes."""
