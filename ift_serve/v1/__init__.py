"""Messages and services generated from protos/; never edited (make proto)."""
