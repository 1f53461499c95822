"""Training of the models and adapters that ift-serve serves."""
