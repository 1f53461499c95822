"""Instruction data from a few seeds: records with their lineage, made by asking a server."""
