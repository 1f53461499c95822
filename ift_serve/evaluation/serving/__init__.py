"""What an evaluation asks a server, and what it gets."""
