"""Adapter directories (format 1): read, checked, written, explained."""
