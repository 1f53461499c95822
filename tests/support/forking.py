"""A strategy that does everything a strategy may do, decided by tokens alone."""

from __future__ import annotations

from ift_serve.engine.core.strategy import Branch, Control, Strategy
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.results import FinishReason
from ift_serve.engine.sequences.step import SampledToken


class Tree(Strategy):
    """The first sequence forks, forces and reheats itself; when all have ended the longest is revealed."""

    width = 1
    streams = False
    records = True

    def __init__(self, request: GenerateRequest) -> None:
        self._branches: list[Branch] = []

    def on_token(self, control: Control, branch: Branch, token: SampledToken, reason: FinishReason | None) -> None:
        if not self._branches:
            self._branches.append(branch)
        if branch.ordinal:
            if token.token_id % 13 == 5:
                control.stop(branch)
                self._reveal_when_done(control)
            return
        if token.token_id % 5 == 1 and len(self._branches) < 6:
            replace = (token.token_id + 1) % 50 + 1
            self._branches.append(control.fork(branch, replace_last=replace))
        if token.token_id % 7 == 2:
            control.force(branch, [11, 12, 13], replace_last=token.token_id % 2 == 0)
        elif token.token_id % 7 == 3:
            self._branches.append(control.fork(branch))
        control.set_temperature(branch, 0.5 + token.token_id % 3)

    def on_end(self, control: Control, branch: Branch, reason: FinishReason) -> None:
        self._reveal_when_done(control)

    def _reveal_when_done(self, control: Control) -> None:
        if not control.live:
            best = max(self._branches, key=lambda other: (other.generated_count, other.generated))
            control.reveal(best, 0)
