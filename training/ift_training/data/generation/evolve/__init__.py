"""Evol-Instruct (Xu et al. 2023, arXiv 2304.12244): records made harder, and others made beside them."""
