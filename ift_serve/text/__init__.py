"""Text and token ids: tokenizers, chat templates with segments, text that can be sent while it is generated."""

from ift_serve.text.detokenizer import IncrementalDetokenizer
from ift_serve.text.stop import StopMatcher

__all__ = ["IncrementalDetokenizer", "StopMatcher"]
