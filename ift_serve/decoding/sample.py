"""Plain generation: ``n`` candidates from one prompt, each left to itself."""

from __future__ import annotations

from ift_serve.engine.core.strategy import Strategy
from ift_serve.engine.protocol.generate import GenerateRequest


class Sample(Strategy):
    """Starts ``sampling.candidates`` sequences and lets them run to their end."""

    passive = True

    def __init__(self, request: GenerateRequest) -> None:
        self.width = request.sampling.candidates
