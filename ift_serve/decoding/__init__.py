"""Decoding strategies over the engine, and the process that puts both together."""
