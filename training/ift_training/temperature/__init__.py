"""Training of the heads that choose sampling temperatures, from verifiable rewards on a frozen model."""
