"""Several sources as one dataset: weights, and an order that the seed decides."""

from __future__ import annotations

import bisect
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from ift_training.data.encode import EncodedExample, Encoder, EncodingError
from ift_training.data.records import Record
from ift_training.data.shuffle import Permutation
from ift_training.data.sources import Source, SourceError
from ift_training.data.violations import violate

_ATTEMPTS = 50


@dataclass(slots=True)
class Pool:
    """The records of a source that are used: their indexes, or all of a source that never ends."""

    source: Source
    kept: array[int] | None

    def __len__(self) -> int:
        return len(self.source) if self.kept is None else len(self.kept)


class ExampleDataset:
    """A map-style dataset of :class:`EncodedExample`, one epoch long.

    For training, ``weight`` times as many examples of each pool are in an epoch as it has records; what a fraction
    leaves out of one epoch is in the next, so after k epochs every record was seen floor or ceil of ``k x weight``
    times. The order within an epoch is a function of seed and epoch. Otherwise every record comes once, in order.
    ``tasks`` are the names that ``EncodedExample.task`` counts.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        encoder: Encoder,
        tasks: Sequence[str],
        seed: int,
        *,
        training: bool = True,
        violations: bool = False,
    ) -> None:
        self.pools = [pool for pool in pools if len(pool)]
        self.encoder = encoder
        self.tasks = list(tasks)
        self.seed = seed
        self.epoch = 0
        self._training = training
        self._violations = violations
        weights = [pool.source.settings.weight if training else 1.0 for pool in self.pools]
        self._counts = [max(1, round(w * len(pool))) for w, pool in zip(weights, self.pools, strict=True)]
        self._ends: list[int] = []
        for count in self._counts:
            self._ends.append(count + (self._ends[-1] if self._ends else 0))
        self._order = Permutation(len(self), seed, "epoch", 0)
        self._turns: dict[tuple[int, int], Permutation] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def set_epoch(self, epoch: int) -> None:
        """Go to another epoch: another order, and other examples of sources that never end."""
        self.epoch = epoch
        self._order = Permutation(len(self), self.seed, "epoch", epoch)
        self._turns.clear()

    def __getitem__(self, index: int) -> EncodedExample:
        pool, place, turn = self._place(index)
        source = self.pools[pool].source
        for attempt in range(_ATTEMPTS):
            record, task = source.record(place, turn)
            try:
                return self._encode(record, task, f"{self.seed}|{pool}|{place}|{turn}")
            except EncodingError:
                if not source.fresh:
                    raise
                turn += (attempt + 1) << 32
        raise SourceError(f"{source.where(place)}: {_ATTEMPTS} examples in a row do not fit; raise max_length")

    def record(self, index: int) -> tuple[Record, str]:
        """The record behind an index, and its task."""
        pool, place, turn = self._place(index)
        return self.pools[pool].source.record(place, turn)

    def _encode(self, record: Record, task: str, key: str) -> EncodedExample:
        wrong = violate(record, random.Random(key)) if self._violations else None
        return self.encoder.encode(record, self.tasks.index(task), task, wrong)

    def _place(self, index: int) -> tuple[int, int, int]:
        """Pool, index within its source, and how often the source has been gone through before."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self._training:
            index = self._order[index]
        number = bisect.bisect_right(self._ends, index)
        pool = self.pools[number]
        within = index - (self._ends[number] - self._counts[number])
        turn, position = divmod(self.epoch * self._counts[number] + within, len(pool))
        if self._training and not pool.source.fresh:
            position = self._turn(number, turn)[position]
        return number, position if pool.kept is None else pool.kept[position], turn

    def _turn(self, number: int, turn: int) -> Permutation:
        key = (number, turn)
        if key not in self._turns:
            self._turns[key] = Permutation(len(self.pools[number]), self.seed, number, turn)
        return self._turns[key]
