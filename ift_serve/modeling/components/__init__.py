"""The eleven components of the instruction-aware model, shared by training and serving."""
