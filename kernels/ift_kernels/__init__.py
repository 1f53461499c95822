"""Operations of the device layer: a PyTorch reference that defines each, and the implementations that run."""
