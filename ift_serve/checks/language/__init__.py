"""What is to be known of natural language: which one it is, where sentences end, what its words are."""
