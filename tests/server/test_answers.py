"""A candidate as its caller sees it does not depend on how the engine's outputs were joined on their way."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_serve.engine.protocol.generate import CandidateOutput, TokenStatistics
from ift_serve.engine.protocol.results import FinishReason
from ift_serve.server.answers import CandidateText, Wanted
from ift_serve.server.metrics import Metrics
from ift_serve.text.token_texts import TokenDecoder
from ift_serve.v1 import inference_pb2 as pb
from tests.support.models import tiny_tokenizer
from tests.support.tiny_tokenizers import tokenizer_of

STATISTICS = TokenStatistics(-0.5, 0.6, 0.2, 1.0, -3.0, 1.0)
TOKENIZER = tiny_tokenizer()


def seen(ids: list[int], cuts: list[int], stop: list[str], reason: FinishReason) -> tuple[str, list[int], int, str]:
    """Text, token ids, finish reason and matched stop string of outputs cut at these places."""
    candidate = CandidateText(0, TOKENIZER, stop, Wanted(tokens=True, statistics=False))
    metrics, text, tokens, matched = Metrics(), "", list[int](), ""
    bounds = [0, *cuts, len(ids)]
    for first, last in pairwise(bounds):
        output = CandidateOutput(
            request_id="r",
            candidate=0,
            token_ids=ids[first:last],
            statistics=[STATISTICS] * (last - first),
            finish_reason=reason if last == len(ids) else None,
        )
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


@pytest.mark.parametrize("kind", ["byte-level", "byte-fallback", "metaspace", "unigram"])
@pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.EOS])
@settings(max_examples=60, deadline=None)
@given(data=st.data(), cuts=st.lists(st.integers(1, 40), max_size=6).map(sorted))
def test_the_texts_of_tokens_join_to_the_text(
    kind: str, reason: FinishReason, data: st.DataObject, cuts: list[int]
) -> None:
    tokenizer = tokenizer_of(kind)
    text = data.draw(st.text(alphabet="the dog éö日🙂", max_size=20))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    ids += data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), min_size=1, max_size=20))
    ids.append(tokenizer.token_to_id("</s>" if reason is FinishReason.EOS else "a"))
    candidate = CandidateText(0, tokenizer, [], Wanted(tokens=True, statistics=False))
    answer, tokens = "", list[pb.Token]()
    for first, last in pairwise([0, *(c for c in cuts if c < len(ids)), len(ids)]):
        output = CandidateOutput(
            request_id="r",
            candidate=0,
            token_ids=ids[first:last],
            statistics=[STATISTICS] * (last - first),
            top_log_probs=[[(i, -1.0)] for i in ids[first:last]],
            finish_reason=reason if last == len(ids) else None,
        )
        delta = candidate.add(output, Metrics())
        if delta is not None:
            answer += delta.text
            tokens += delta.tokens
    special = TokenDecoder(tokenizer).special
    assert answer == tokenizer.decode(ids)
    assert [t.token_id for t in tokens] == ids
    assert "".join(t.text for t in tokens if t.token_id not in special) == answer
    assert all(t.text == special[t.token_id] for t in tokens if t.token_id in special)
    assert all(t.alternatives[0].raw == t.raw for t in tokens)


def test_words_keep_their_spaces_and_characters_their_bytes() -> None:
    tokenizer = tokenizer_of("byte-fallback")
    ids = tokenizer.encode("the dog é", add_special_tokens=False).ids
    candidate = CandidateText(0, tokenizer, [], Wanted(tokens=True, statistics=False))
    other = tokenizer.encode("fox", add_special_tokens=False).ids[0]
    output = CandidateOutput(
        request_id="r",
        candidate=0,
        token_ids=ids,
        statistics=[STATISTICS] * len(ids),
        top_log_probs=[[(i, -1.0), (other, -2.0)] for i in ids],
        finish_reason=FinishReason.LENGTH,
    )
    delta = candidate.add(output, Metrics())
    assert delta is not None
    assert delta.text == "the dog é"
    assert [t.text for t in delta.tokens][-2:] == ["", "é"]
    assert b"".join(t.raw for t in delta.tokens) == "the dog é".encode()
    spaced = next(t for t in delta.tokens[1:] if t.text.startswith(" "))
    assert spaced.alternatives[0].text == spaced.text
    assert spaced.alternatives[1].text.startswith(" f")


def test_a_stop_string_behind_a_stray_byte_is_found() -> None:
    tokenizer = tokenizer_of("byte-fallback")
    stray = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in (*"é".encode(), 0xFF)]
    ids = [*stray, *tokenizer.encode(" the dog and the fox", add_special_tokens=False).ids]
    candidate = CandidateText(0, tokenizer, ["dog"], Wanted(tokens=False, statistics=False))
    text = ""
    for token_id in ids:
        output = CandidateOutput(request_id="r", candidate=0, token_ids=[token_id], statistics=[STATISTICS])
        delta = candidate.add(output, Metrics())
        text += delta.text if delta is not None else ""
        if candidate.is_finished:
            break
    assert candidate.finish_reason == pb.FINISH_REASON_STOP
    assert text == tokenizer.decode(ids).partition("dog")[0]
