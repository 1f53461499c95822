"""The parts of the training loss. Each gives sums; the trainer divides by counts over the whole optimiser step."""
