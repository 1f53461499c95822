"""Replicas of the engine on Ray Serve, behind its gRPC ingress."""
