"""Records that say nearly what an earlier one says, found by MinHash (Broder 1997) over runs of words."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ift_serve.checks.errors import MissingExtraError
from ift_training.data.quality.pair import Pair
from ift_training.data.quality.words import words

Text = Literal["instruction", "response", "both"]
Hashes = NDArray[np.uint64]
"""Of the different runs of words of a text, in ascending order."""
PERMUTATIONS = 128
SEED = 1
_MISSED = 0.9
"""Weight of missing a duplicate beside proposing one in vain: what is proposed is compared exactly."""


class Runs(NamedTuple):
    """What of a record is compared: the text itself, and the context that it is about."""

    text: Hashes
    context: Hashes


def runs(pair: Pair, text: Text, length: int) -> Runs:
    """The runs of ``length`` words of a part of the pair. Answers alone are compared whatever they are about."""
    parts = {
        "instruction": (pair.instruction,),
        "response": (pair.response,),
        "both": (pair.instruction, pair.response),
    }
    return Runs(_hashes(parts[text], length), _hashes(() if text == "response" else (pair.context,), length))


def likenesses(one: Runs, others: Sequence[Runs]) -> NDArray[np.float64]:
    """``[N]``, 0 to 1: the Jaccard similarity to each of the others, of texts or, where that is smaller, of contexts.

    One question about two texts, and two questions about one text, are no duplicates.
    """
    same = _jaccard(one.text, [other.text for other in others])
    contexts = [other.context for other in others]
    has_context = np.array([len(context) > 0 for context in contexts]) | (len(one.context) > 0)
    if not has_context.any():
        return same
    return np.where(has_context, np.minimum(same, _jaccard(one.context, contexts)), same)


def _jaccard(one: Hashes, others: Sequence[Hashes]) -> NDArray[np.float64]:
    """Shares of the runs of both that both have; two empty texts are not alike."""
    sizes = np.array([len(other) for other in others])
    if not len(one) or not sizes.any():
        return np.zeros(len(others))
    every = np.concatenate(others)
    there = one[np.minimum(np.searchsorted(one, every), len(one) - 1)] == every
    counted = np.concatenate([[0], np.cumsum(there)])
    ends = np.cumsum(sizes)
    shared = counted[ends] - counted[ends - sizes]
    alike: NDArray[np.float64] = shared / (len(one) + sizes - shared)
    return alike


def _hashes(parts: Sequence[str], length: int) -> Hashes:
    """A text of fewer words is one run, an empty one none."""
    found: set[int] = set()
    for part in parts:
        said = words(part)
        size = min(length, len(said))
        found.update(_hashed(said[i : i + size]) for i in range(len(said) - size + 1) if size)
    return np.array(sorted(found), np.uint64)


class Sketches:
    """Signatures of records in their order, 512 bytes each, and which records share a part of theirs.

    ``least``: the similarity from which on two records should be found; how the signature is cut into parts follows
    from it. Raises MissingExtraError without the package datasketch.
    """

    def __init__(self, least: float) -> None:
        library = _datasketch()
        self._empty: Any = library.MinHash(num_perm=PERMUTATIONS, seed=SEED, scheme="affine32", hashfunc=_folded)
        table = library.MinHashLSH(threshold=least, num_perm=PERMUTATIONS, weights=(1 - _MISSED, _MISSED))
        self.parts, self.rows = int(table.b), int(table.r)
        self._values = array("I")
        self._blank = bytearray()

    def add(self, found: Runs) -> None:
        """The next record's runs."""
        sketch = self._empty.copy()
        if len(found.text):
            sketch.update_batch(found.text.tolist())
        self._values.frombytes(sketch.hashvalues.astype(np.uint32).tobytes())
        self._blank.append(not len(found.text))

    def signatures(self) -> NDArray[np.uint32]:
        """``[N, 128]``."""
        return np.frombuffer(self._values, np.uint32).reshape(-1, PERMUTATIONS)

    def shared(self) -> dict[int, tuple[int, ...]]:
        """By the place of each record that shares a part with another: numbers of the parts that it shares."""
        values, found, first = self.signatures(), dict[int, list[int]](), 0
        written = np.flatnonzero(np.frombuffer(self._blank, np.uint8) == 0)
        for part in range(self.parts):
            rows = np.ascontiguousarray(values[written, part * self.rows : (part + 1) * self.rows])
            keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * self.rows))).ravel()
            _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
            for place in np.flatnonzero(counts[inverse] > 1):
                found.setdefault(int(written[place]), []).append(first + int(inverse[place]))
            first += len(counts)
        return {place: tuple(found[place]) for place in sorted(found)}


class DuplicateIndex:
    """The accepted ones of the records that share a part of their signature with another.

    What it answers depends on the records and their order alone.
    """

    def __init__(self, shared: Mapping[int, tuple[int, ...]], least: float) -> None:
        self._shared, self._least = shared, least
        self._runs: dict[int, Runs] = {}
        self._parts: dict[int, array[int]] = {}

    def __contains__(self, place: int) -> bool:
        """Whether the record at a place can have a duplicate."""
        return place in self._shared

    def closest(self, place: int, found: Runs) -> tuple[float, int]:
        """The similarity to the closest accepted record, which is exact, and its place; 0 and -1 below ``least``.

        Of equally close ones the first. All candidates are compared at once: many records made from one template are
        candidates of one another.
        """
        candidates = self._candidates(place)
        if not len(candidates):
            return 0.0, -1
        alike = likenesses(found, [self._runs[candidate] for candidate in candidates.tolist()])
        best = int(np.argmax(alike))
        return (float(alike[best]), int(candidates[best])) if alike[best] >= self._least else (0.0, -1)

    def accept(self, place: int, found: Runs) -> None:
        """Hold later records against this one."""
        self._runs[place] = found
        for part in self._shared[place]:
            self._parts.setdefault(part, array("q")).append(place)

    def _candidates(self, place: int) -> NDArray[np.int64]:
        """In ascending order."""
        lists = [np.array(self._parts[part], np.int64) for part in self._shared[place] if part in self._parts]
        return np.unique(np.concatenate(lists)) if lists else np.empty(0, np.int64)


def _hashed(said: list[str]) -> int:
    text = " ".join(said).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _folded(value: int) -> int:
    """The 32 bits of a run's hash that the library permutes."""
    return value & 0xFFFFFFFF


def _datasketch() -> Any:
    try:
        import datasketch
    except ImportError as error:
        raise MissingExtraError("which records are nearly alike", "datasketch", "data") from error
    return datasketch
