"""Examples to batches: padded or packed, with hidden instruction tokens and responses that do not belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import torch
from torch import Tensor

from ift_training.losses.instruction import UNJUDGED
from ift_training.losses.next_token import IGNORED
from ift_training.settings import MaskingSettings

_INSTRUCTION, _RESPONSE = 1, 3


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
class _Document:
    ids: list[int]
    segments: list[int]
    labels: list[int]
    task: int
    judged: int


class Collator:
    """Makes the keyword arguments of :meth:`ift_training.model.instruction_model.InstructionModel.forward`.

    With ``judges`` every example comes twice: with its own response, and with one that breaks the instruction, or
    the next example's; the second is for the instruction loss only. What is hidden depends on the seed, the epoch and
    the example alone, so a resumed run hides the same.
    """

    def __init__(
        self,
        *,
        padding: int,
        mask_token: int,
        masking: MaskingSettings,
        packing: bool,
        max_length: int,
        judges: bool,
        seed: int = 0,
    ) -> None:
        self._padding = padding
        self._mask_token = mask_token
        self._masking = masking
        self._packing = packing
        self._max_length = max_length
        self._judges = judges
        self._seed = seed
        self.epoch = 0

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        documents = [self._document(example) for example in examples]
        if self._judges:
            documents += self._wrong(examples)
        return self._tensors(self._rows(documents), documents)

    def _document(self, example: Example) -> _Document:
        ids, segments = list(example.input_ids), list(example.segment_ids)
        labels = [t if seen else IGNORED for t, seen in zip(ids, example.labels_mask, strict=True)]
        if self._masking.rate > 0:
            ids, segments, labels = self._hide(ids, segments, labels)
        return _Document(ids, segments, labels, example.task, 1 if self._judges else UNJUDGED)

    def _hide(self, ids: list[int], segments: list[int], labels: list[int]) -> tuple[list[int], list[int], list[int]]:
        number = blake2b(repr((self._seed, self.epoch, ids)).encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(number, "little"))
        hidden = (torch.rand(len(ids), generator=generator) < self._masking.rate).tolist()
        chosen = [h and s == _INSTRUCTION for h, s in zip(hidden, segments, strict=True)]
        if self._masking.mode == "replace":
            return [self._mask_token if c else t for c, t in zip(chosen, ids, strict=True)], segments, labels
        kept = [i for i, c in enumerate(chosen) if not c]
        return [ids[i] for i in kept], [segments[i] for i in kept], [labels[i] for i in kept]

    def _wrong(self, examples: Sequence[Example]) -> list[_Document]:
        found = []
        for index, example in enumerate(examples):
            other = examples[(index + 1) % len(examples)]
            response = example.violating
            if response is None:
                response = other.input_ids[other.response_start :]
            start = example.response_start
            own = example.input_ids[start:]
            if response == own:
                continue
            ids = [*example.input_ids[:start], *response][: self._max_length]
            segments = [*example.segment_ids[:start], *([_RESPONSE] * len(response))][: self._max_length]
            found.append(_Document(ids, segments, [IGNORED] * len(ids), example.task, 0))
        return found

    def _rows(self, documents: list[_Document]) -> list[list[int]]:
        """Indices of the documents of each row; packed rows take the first document that fits, in order."""
        if not self._packing:
            return [[index] for index in range(len(documents))]
        longest = max(self._max_length, max(len(d.ids) for d in documents))
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
        ids = torch.full(shape, self._padding)
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
            "input_ids": ids, "labels": labels, "segments": segments, "sequence": sequence, "positions": positions,
            "tasks": torch.tensor([d.task for d in documents]), "judged": torch.tensor([d.judged for d in documents]),
        }  # fmt: skip
