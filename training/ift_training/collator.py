"""Examples to batches: padded or packed, with hidden instruction tokens and responses that do not belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

import torch
from torch import Tensor

from ift_serve.modeling.components.tokens import INSTRUCTION, RESPONSE
from ift_training.losses.instruction import UNJUDGED
from ift_training.losses.next_token import IGNORED
from ift_training.settings import MaskingSettings

_TRIES = 32
"""Examples looked at for an answer that differs and fits."""


class Example(Protocol):
    """What the collator reads of :class:`ift_training.data.encode.EncodedExample`."""

    input_ids: list[int]
    segment_ids: bytes
    labels_mask: bytes
    task: int
    violating: list[int] | None

    @property
    def response_start(self) -> int: ...


@dataclass(slots=True)
class Pair:
    """An example, and the response to another one."""

    example: Example
    other: list[int] | None


class WithOthers:
    """A dataset of :class:`Pair`: each example with the response of one that follows it in the epoch's order.

    Taken from the dataset, not from the batch, so that the loss does not depend on how examples are cut into batches.
    The response is whole: one that prompt and ``max_length`` leave no room for is passed over, because a response
    that is cut off would be told from a right one by its missing end alone.
    """

    def __init__(self, dataset: Any, max_length: int) -> None:
        self._dataset = dataset
        self._max_length = max_length

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Pair:
        example: Example = self._dataset[index]
        own, count = _response(example), len(self)
        room = self._max_length - example.response_start
        for step in range(1, min(count, _TRIES + 1)):
            other = _response(self._dataset[(index + step) % count])
            if other != own and len(other) <= room:
                return Pair(example, other)
        return Pair(example, None)

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch on to a dataset that asks for it."""
        if hasattr(self._dataset, "set_epoch"):
            self._dataset.set_epoch(epoch)


def _response(example: Example) -> list[int]:
    return example.input_ids[example.response_start :]


@dataclass(slots=True)
class _Document:
    ids: list[int]
    segments: list[int]
    labels: list[int]
    task: int
    judged: int


@dataclass(kw_only=True, slots=True)
class Collator:
    """Makes the keyword arguments of :meth:`ift_training.model.instruction_model.InstructionModel.forward`.

    With ``judges`` every example comes twice: with its own response, and with one that breaks the instruction or
    belongs to another, by turns where both are known and fit; the second is for the instruction loss only. What is
    hidden and which response is taken depends on the seed, the epoch and the example alone, so a resumed run does the
    same.
    """

    padding: int
    mask_token: int
    masking: MaskingSettings
    packing: bool
    max_length: int
    judges: bool
    seed: int = 0
    epoch: int = 0

    def __call__(self, examples: Sequence[Example | Pair]) -> dict[str, Tensor]:
        pairs = [found if isinstance(found, Pair) else Pair(found, None) for found in examples]
        documents = [self._document(pair.example) for pair in pairs]
        if self.judges:
            wrong = [self._wrong(*both) for both in zip(pairs, documents, strict=True)]
            documents += [document for document in wrong if document is not None]
        return self._tensors(self._rows(documents), documents)

    def _document(self, example: Example) -> _Document:
        ids, segments = list(example.input_ids), list(example.segment_ids)
        labels = [t if seen else IGNORED for t, seen in zip(ids, example.labels_mask, strict=True)]
        if self.masking.rate > 0:
            ids, segments, labels = self._hide(ids, segments, labels)
        return _Document(ids, segments, labels, example.task, 1 if self.judges else UNJUDGED)

    def _generator(self, purpose: str, ids: list[int]) -> torch.Generator:
        number = blake2b(repr((self.seed, self.epoch, purpose, ids)).encode(), digest_size=7).digest()
        return torch.Generator().manual_seed(int.from_bytes(number, "little"))

    def _hide(self, ids: list[int], segments: list[int], labels: list[int]) -> tuple[list[int], list[int], list[int]]:
        draws = torch.rand(len(ids), generator=self._generator("hide", ids))
        places = [place for place, segment in enumerate(segments) if segment == INSTRUCTION]
        chosen = {place for place in places if draws[place] < self.masking.rate}
        if self.masking.mode == "replace":
            return [self.mask_token if i in chosen else t for i, t in enumerate(ids)], segments, labels
        if len(chosen) == len(places):
            # An example without any instruction would teach to answer none.
            chosen.discard(max(places, key=lambda place: float(draws[place]), default=-1))
        kept = [i for i in range(len(ids)) if i not in chosen]
        return [ids[i] for i in kept], [segments[i] for i in kept], [labels[i] for i in kept]

    def _wrong(self, pair: Pair, true: _Document) -> _Document | None:
        """The same prompt, hidden in the same places, with a response that is wrong; None where none fits."""
        own = _response(pair.example)
        room = self.max_length - pair.example.response_start
        known = [r for r in (pair.example.violating, pair.other) if r and r != own and len(r) <= room]
        if not known:
            return None
        turn = torch.randint(len(known), (1,), generator=self._generator("wrong", pair.example.input_ids))
        response = known[int(turn)]
        end = len(true.ids) - len(own)
        ids = [*true.ids[:end], *response]
        segments = [*true.segments[:end], *([RESPONSE] * len(response))]
        return _Document(ids, segments, [IGNORED] * len(ids), true.task, 0)

    def _rows(self, documents: list[_Document]) -> list[list[int]]:
        """Indices of the documents of each row; packed rows take the first document that fits, in order."""
        if not self.packing:
            return [[index] for index in range(len(documents))]
        longest = max(self.max_length, max(len(d.ids) for d in documents))
        rows: list[list[int]] = []
        room: list[int] = []
        for index, document in enumerate(documents):
            place = next((i for i, left in enumerate(room) if left >= len(document.ids)), None)
            if place is None:
                rows.append([])
                room.append(longest)
                place = len(rows) - 1
            rows[place].append(index)
            room[place] -= len(document.ids)
        return rows

    def _tensors(self, rows: list[list[int]], documents: list[_Document]) -> dict[str, Tensor]:
        length = max(sum(len(documents[i].ids) for i in row) for row in rows)
        shape = (len(rows), length)
        ids = torch.full(shape, self.padding)
        labels = torch.full(shape, IGNORED)
        segments = torch.zeros(shape, dtype=torch.uint8)
        sequence, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        for number, row in enumerate(rows):
            first = 0
            for index in row:
                document = documents[index]
                span = slice(first, first + len(document.ids))
                ids[number, span] = torch.tensor(document.ids)
                labels[number, span] = torch.tensor(document.labels)
                # A document's first token is predicted by nothing of its own.
                labels[number, first] = IGNORED
                segments[number, span] = torch.tensor(document.segments, dtype=torch.uint8)
                # Padding behind the last document counts as its own, which sees it but is not seen by it.
                sequence[number, first:] = index
                positions[number, first:] = torch.arange(length - first)
                first += len(document.ids)
        return {
            "input_ids": ids,
            "labels": labels,
            "segments": segments,
            "sequence": sequence,
            "positions": positions,
            "tasks": torch.tensor([d.task for d in documents]),
            "judged": torch.tensor([d.judged for d in documents]),
        }
