"""One model computed by several processes: the engine's own, rank 0, and followers that do as it says."""
