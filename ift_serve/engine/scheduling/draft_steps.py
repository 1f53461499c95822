"""Adds drafted tokens to a step that only decodes, in rows and blocks that nothing else needs."""

from __future__ import annotations

from ift_serve.engine.cache.block_tables import BlockTables
from ift_serve.engine.drafting.drafts import Drafts
from ift_serve.engine.sequences.sequence import Sequence
from ift_serve.engine.sequences.step import SequenceStep


class DraftSteps:
    """Asks ``drafts`` what follows, and gives it the blocks it needs."""

    def __init__(self, drafts: Drafts, tables: BlockTables) -> None:
        self._drafts = drafts
        self._tables = tables

    def extend(self, steps: list[SequenceStep], scheduled: list[Sequence], room: int, running: int) -> None:
        """Put drafted tokens behind the last ones of scheduled sequences, in their steps.

        room: rows that the step has left. running: sequences that may want a block each in their next step.
        """
        if not scheduled:
            return
        spare = max(0, self._tables.blocks.free - running) // len(scheduled)
        longest = [self._longest(sequence, spare) for sequence in scheduled]
        for place, tokens in enumerate(self._drafts.plan(scheduled, room, longest)):
            if tokens:
                sequence = scheduled[place]
                while len(sequence.tokens) + len(tokens) > sequence.capacity:
                    self._tables.append(sequence)
                steps[place] = sequence.drafted_step(tokens)

    def _longest(self, sequence: Sequence, spare: int) -> int:
        """Tokens that may be drafted: what is drawn behind the last one belongs to the sequence, and it gets at most
        ``spare`` blocks for them."""
        request = sequence.owner
        if not (request.may_draft and sequence.can_be_drafted):
            return 0
        length = len(sequence.tokens)
        return max(0, min(request.length_limit - 1, self._tables.capacity_with(sequence, spare)) - length)
