"""The adapters that an engine knows, their slots and their tensors."""
