"""Limits that callers share, in the server and in the engine alike. Below everything."""
