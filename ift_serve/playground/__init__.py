"""The playground: one page over the gateway, without a request to anywhere else."""
