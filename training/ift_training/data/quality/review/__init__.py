"""A local page on which people decide about flagged records."""
