"""What people and programs read of an evaluation."""
