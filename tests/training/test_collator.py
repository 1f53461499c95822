"""Examples to batches: what is padded, packed, hidden, and what stands for a wrong response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from ift_training.collator import Collator, Pair, WithOthers
from ift_training.data.encode import EncodedExample
from ift_training.losses.next_token import IGNORED
from ift_training.settings import MaskingSettings
from tests.support.training import examples

MASK = 298


def collator(*, epoch: int = 0, rate: float = 0.0, mode: str = "replace", **changes: Any) -> Collator:
    masking = MaskingSettings.model_validate({"rate": rate, "mode": mode})
    given: dict[str, Any] = {"padding": 299, "mask_token": MASK, "packing": False, "max_length": 64, "judges": False}
    found = Collator(masking=masking, **{**given, **changes})
    found.epoch = epoch
    return found


def _documents(batch: dict[str, Tensor], key: str) -> list[list[int]]:
    """What a batch says of each document's tokens, padding apart."""
    found: list[list[int]] = []
    for document in range(len(batch["tasks"])):
        rows, places = (batch["sequence"] == document).nonzero(as_tuple=True)
        kept = [i for i, (r, p) in enumerate(zip(rows, places, strict=True)) if batch["input_ids"][r, p] != 299]
        row = rows[kept[0]]
        found.append(batch[key][row, places[kept]].tolist())
    return found


@pytest.mark.parametrize("packing", [False, True])
def test_every_document_is_there_whole_and_counts_from_its_own_beginning(packing: bool) -> None:
    data = examples(7)
    batch = collator(packing=packing)(data)
    assert _documents(batch, "input_ids") == [example.input_ids for example in data]
    assert _documents(batch, "segments") == [list(example.segment_ids) for example in data]
    assert _documents(batch, "positions") == [list(range(len(example.input_ids))) for example in data]
    labels = [
        [t if seen else IGNORED for t, seen in zip(example.input_ids, example.labels_mask, strict=True)]
        for example in data
    ]
    assert _documents(batch, "labels") == labels
    assert batch["tasks"].tolist() == [example.task for example in data]


def test_packing_needs_fewer_rows_none_longer_than_allowed() -> None:
    data = examples(12)
    padded, packed = (collator(packing=p)(data)["input_ids"] for p in (False, True))
    assert packed.shape[0] < padded.shape[0] and packed.shape[1] <= 64
    assert packed.numel() < padded.numel()


def test_a_documents_first_token_is_no_target_though_the_loss_sees_all() -> None:
    example = examples(1)[0]
    everything = EncodedExample(example.input_ids, example.segment_ids, b"\1" * len(example.input_ids), 0, "first")
    batch = collator(packing=True)([everything, everything])
    starts = batch["positions"] == 0
    assert starts.sum() == 2 and (batch["labels"][starts] == IGNORED).all()


def test_hiding_replaces_instruction_tokens_only_and_leaves_what_is_learned() -> None:
    data = examples(40)
    batch, plain = collator(rate=0.5)(data), collator()(data)
    hidden = batch["input_ids"] == MASK
    assert (batch["segments"][hidden] == 1).all()
    assert torch.equal(batch["input_ids"][~hidden], plain["input_ids"][~hidden])
    assert torch.equal(batch["labels"], plain["labels"])
    share = hidden.sum() / (batch["segments"] == 1).sum()
    assert 0.4 < share < 0.6


def test_dropping_takes_tokens_out_with_their_segments_and_leaves_some_instruction() -> None:
    data = examples(60)
    batch = collator(rate=0.9, mode="drop")(data)
    ids, segments = _documents(batch, "input_ids"), _documents(batch, "segments")
    for example, left, kinds in zip(data, ids, segments, strict=True):
        others = [t for t, s in zip(example.input_ids, example.segment_ids, strict=True) if s != 1]
        assert [t for t, s in zip(left, kinds, strict=True) if s != 1] == others
        assert 1 <= kinds.count(1) <= list(example.segment_ids).count(1)
    assert _documents(batch, "positions") == [list(range(len(left))) for left in ids]


def test_what_is_hidden_is_new_in_each_epoch_and_the_same_however_examples_are_batched() -> None:
    data = examples(6)

    def hidden(epoch: int, batches: Sequence[Sequence[EncodedExample]], seed: int = 0) -> list[list[int]]:
        return [
            ids
            for batch in batches
            for ids in _documents(collator(epoch=epoch, rate=0.5, seed=seed)(batch), "input_ids")
        ]

    together = hidden(0, [data])
    assert together == hidden(0, [data[:1], data[1:4], data[4:]])
    assert together != hidden(1, [data])
    assert together != hidden(0, [data], seed=1)


def test_a_wrong_response_comes_with_the_same_prompt_hidden_in_the_same_places() -> None:
    data = examples(24)
    batch = collator(judges=True, rate=0.5)([WithOthers(data, 64)[i] for i in range(24)])
    ids, judged = _documents(batch, "input_ids"), batch["judged"].tolist()
    assert judged == [1] * 24 + [0] * 24
    for index, example in enumerate(data):
        start = example.response_start
        true, wrong = ids[index], ids[24 + index]
        assert wrong[:start] == true[:start]
        assert MASK in true[:start] or MASK not in wrong[:start]
        assert wrong[start:] != true[start:] == example.input_ids[start:]
        other = data[(index + 1) % 24]
        assert wrong[start:] in (example.violating, other.input_ids[other.response_start :])
    assert all(set(labels) == {IGNORED} for labels in _documents(batch, "labels")[24:])


def test_violating_and_foreign_responses_take_turns_over_epochs() -> None:
    data = examples(12)
    pair = WithOthers(data, 64)[0]
    assert pair.example.violating is not None and pair.other is not None
    start = data[0].response_start
    seen = {tuple(_documents(collator(judges=True, epoch=e)([pair]), "input_ids")[1][start:]) for e in range(12)}
    assert seen == {tuple(pair.example.violating), tuple(pair.other)}


def test_one_example_is_judged_the_same_alone_as_among_others() -> None:
    pairs = [WithOthers(examples(8), 64)[i] for i in range(8)]
    together = collator(judges=True)(pairs)
    alone = [collator(judges=True)([pair]) for pair in pairs]
    assert _documents(together, "input_ids")[8:] == [_documents(one, "input_ids")[1] for one in alone]


def test_an_answer_that_all_share_is_never_called_wrong() -> None:
    segments, mask = bytes([0, 1, 1, 3, 3]), bytes([0, 0, 0, 1, 1])
    same = [EncodedExample([7, 8, asked, 9, 9], segments, mask, 0, "first") for asked in (20, 21, 22)]
    dataset = WithOthers(same, 64)
    assert dataset[0].other is None
    assert collator(judges=True)([dataset[i] for i in range(3)])["judged"].tolist() == [1, 1, 1]
    assert collator(judges=True)([Pair(same[0], [9, 9])])["judged"].tolist() == [1]


def _asking(prompt: int, response: int, token: int) -> EncodedExample:
    segments = bytes([0] + [1] * (prompt - 1) + [3] * response)
    return EncodedExample([7] * prompt + [token] * response, segments, bytes(prompt + response), 0, "first")


def test_a_wrong_response_is_the_next_one_that_fits_whole() -> None:
    data = [_asking(20, 4, 8), _asking(10, 9, 9), _asking(10, 14, 10), _asking(10, 3, 11)]
    pairs = WithOthers(data, 24)
    assert [pairs[i].other for i in range(4)] == [[11] * 3, [10] * 14, [11] * 3, [8] * 4]
    batch = collator(judges=True, max_length=24)([pairs[i] for i in range(4)])
    wrong = _documents(batch, "input_ids")[4:]
    for index, ids in enumerate(wrong):
        start = data[index].response_start
        assert ids[start:] == pairs[index].other and len(ids) <= 24


def test_an_example_without_room_for_a_wrong_response_comes_with_its_own_only() -> None:
    data = [_asking(20, 2, 8), _asking(10, 9, 9)]
    assert WithOthers(data, 24)[0].other is None
    batch = collator(judges=True, max_length=24)([Pair(data[0], [9] * 9), WithOthers(data, 24)[1]])
    assert batch["judged"].tolist() == [1, 1, 0]
