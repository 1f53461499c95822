"""What we are measured against: in this process (transformers), or each in an environment of its own."""

from peers.in_process import PEERS, AdapterBatches, ContinuousBatches, StaticBatches, Timing, load

__all__ = ["PEERS", "AdapterBatches", "ContinuousBatches", "StaticBatches", "Timing", "load"]
