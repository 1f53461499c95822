"""Signatures of adapter directories: who vouches for their files."""
