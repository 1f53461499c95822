"""Plain generation: ``n`` candidates from one prompt, each left to itself."""

from __future__ import annotations

from ift_serve.engine.core.step import SampledToken
from ift_serve.engine.core.strategy import Branch, Control
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.results import FinishReason


class Sample:
    """Starts ``sampling.candidates`` sequences and lets them run to their end."""

    streams = True
    records = False

    def __init__(self, request: GenerateRequest) -> None:
        self.width = request.sampling.candidates

    def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
        """Nothing to decide."""

    def on_end(self, control: Control, branch: Branch, reason: FinishReason) -> None:
        """Nothing to decide."""
