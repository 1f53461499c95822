"""A candidate as its caller sees it does not depend on how the engine's outputs were joined on their way."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from ift_serve.engine.messages import CandidateOutput, FinishReason, TokenStatistics
from ift_serve.server.answers import CandidateText, Wanted
from ift_serve.server.metrics import Metrics
from ift_serve.v1 import inference_pb2 as pb
from tests.support.models import tiny_tokenizer

STATISTICS = TokenStatistics(-0.5, 0.6, 0.2, 1.0, -3.0, 1.0)
TOKENIZER = tiny_tokenizer()


def seen(ids: list[int], cuts: list[int], stop: list[str], reason: FinishReason) -> tuple[str, list[int], int, str]:
    """Text, token ids, finish reason and matched stop string of outputs cut at these places."""
    candidate = CandidateText(0, TOKENIZER, stop, Wanted(tokens=True, statistics=False))
    metrics, text, tokens, matched = Metrics(), "", list[int](), ""
    bounds = [0, *cuts, len(ids)]
    for first, last in pairwise(bounds):
        output = CandidateOutput(
            request_id="r", candidate=0, token_ids=ids[first:last], statistics=[STATISTICS] * (last - first),
            finish_reason=reason if last == len(ids) else None,
        )  # fmt: skip
        delta = candidate.add(output, metrics)
        if delta is not None:
            text += delta.text
            tokens += [t.token_id for t in delta.tokens]
            matched = matched or delta.matched_stop.text
        if candidate.is_finished:
            break
    assert candidate.tokens == len(tokens)
    return text, tokens, candidate.finish_reason, matched


@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.EOS])
@pytest.mark.parametrize("stop", [[], ["river"], ["dog ran", "the"], ["é"], ["hello."]])
def test_an_answer_does_not_depend_on_how_outputs_were_joined(stop: list[str], reason: FinishReason) -> None:
    ids = TOKENIZER.encode("a fox and é dog ran to the river. hello", add_special_tokens=False)
    ids.append(2 if reason is FinishReason.EOS else ids[-1])
    alone = seen(ids, list(range(1, len(ids))), stop, reason)
    rng = random.Random(0)
    for _ in range(50):
        cuts = sorted(rng.sample(range(1, len(ids)), rng.randrange(0, 5)))
        assert seen(ids, cuts, stop, reason) == alone


def test_nothing_that_follows_a_stop_string_is_shown_or_counted() -> None:
    ids = TOKENIZER.encode("the fox. the dog", add_special_tokens=False)
    text, tokens, reason, matched = seen(ids, [], ["fox"], FinishReason.LENGTH)
    assert (text, matched, reason) == ("the ", "fox", pb.FINISH_REASON_STOP)
    assert TOKENIZER.decode(tokens) == "the fox"
