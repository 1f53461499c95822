"""Tasks: their prompts, and how answers are judged."""
