"""What the server sends to a collector: traces of calls, and its metrics. Imported only where asked for."""
