"""The engine as the server process sees it."""
