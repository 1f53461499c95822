"""Pairs with planted faults, made by rules from texts of our own: what filters are measured on."""
