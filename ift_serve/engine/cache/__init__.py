"""Cache blocks: who has them, which prefix they hold. Pure Python."""
