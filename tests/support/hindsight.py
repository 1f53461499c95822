"""Drafts for real models: what an engine without drafts has drawn after the same tokens, with errors among it."""

from __future__ import annotations

import random
from collections.abc import Sequence as Listing
from typing import Any

from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.sequences.sequence import Sequence
from ift_serve.engine.sequences.step import SamplingRow, StepBatch, StepResult


class Hindsight:
    """The ``Drafts`` of one engine, from the draws of another that it ``watches``, by seed and history.

    ``right``: how many of ten guesses are what was drawn.
    """

    def __init__(self, seed: int = 0, right: int = 9, longest: int = 7) -> None:
        self._random = random.Random(seed)
        self._right = right
        self._longest = longest
        self._drawn: dict[tuple[int, tuple[int, ...]], int] = {}
        self.drafted = 0

    def watch(self, core: EngineCore) -> None:
        """Note what this engine draws from now on."""
        runner: Any = core._runner
        execute = runner.execute

        def noting(batch: StepBatch) -> StepResult:
            sampling = [step.sampling for step in batch.sequences]
            keys = [None if row is None else _key(row, row.history) for row in sampling]
            result: StepResult = execute(batch)
            for key, sampled in zip(keys, result.sampled, strict=True):
                if key is not None and sampled is not None:
                    self._drawn[key] = sampled.token_id
            return result

        runner.execute = noting

    def plan(self, sequences: Listing[Sequence], room: int, longest: Listing[int]) -> list[list[int]]:
        drafts = []
        for sequence, most in zip(sequences, longest, strict=True):
            guessed = self._guess(sequence, self._random.randint(0, min(room, most, self._longest)))
            room -= len(guessed)
            self.drafted += len(guessed)
            drafts.append(guessed)
        return drafts

    def note(self, seconds: float) -> None:
        assert seconds >= 0

    def _guess(self, sequence: Sequence, count: int) -> list[int]:
        row = sequence.row
        assert row is not None
        tokens = list(sequence.tokens)
        while len(tokens) < len(sequence.tokens) + count:
            known = self._drawn.get(_key(row, tokens))
            if known is None or self._random.randrange(10) >= self._right:
                known = self._random.choice(tokens)
            tokens.append(known)
        return tokens[len(sequence.tokens) :]


def _key(row: SamplingRow, history: list[int]) -> tuple[int, tuple[int, ...]]:
    return row.seed, tuple(history)
