"""Loading a model and running it on flat batches."""
