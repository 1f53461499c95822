"""Self-Instruct (Wang et al. 2023, arXiv 2212.10560): new instructions from examples, and instances of them."""
