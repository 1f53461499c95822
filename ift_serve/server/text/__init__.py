"""Token ids to text that can be sent: whole characters, nothing of a stop string."""

from ift_serve.server.text.detokenizer import IncrementalDetokenizer
from ift_serve.server.text.stop import StopMatcher

__all__ = ["IncrementalDetokenizer", "StopMatcher"]
