"""The model in training: base, low-rank part and components as one module, over padded or packed batches."""
