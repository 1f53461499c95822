"""Serve instruction-tuned language models over gRPC."""
