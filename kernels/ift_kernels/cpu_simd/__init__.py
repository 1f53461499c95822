"""What the CPU kernels are written in: 16-lane vectors and torch's own thread pool, from compiled Python."""
