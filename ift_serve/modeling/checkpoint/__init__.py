"""A base model's files: which there are, what they hold, and which model they are."""
