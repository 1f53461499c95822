"""OpenAI-compatible HTTP in front of a server, over the Python client. A process of its own; optional."""
