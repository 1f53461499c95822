"""Generation, scoring and tokenisation over a real socket, against transformers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ift_serve.server.app import Server
from ift_serve.server.scoring import windows
from ift_serve.v1 import inference_pb2 as pb
from tests.server.conftest import greedy, text_prompt


def _reference(directory: Path, prompt: str, new: int) -> tuple[list[int], str]:
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModelForCausalLM.from_pretrained(directory)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    output = model.generate(ids, max_new_tokens=new, min_new_tokens=new, do_sample=False, eos_token_id=None)
    answer = output[0, ids.shape[1] :].tolist()
    return answer, tokenizer.decode(answer, skip_special_tokens=True)


async def test_greedy_text_is_that_of_transformers(stub: Any, model_directory: Path) -> None:
    ids, text = _reference(model_directory, "the fox", 20)
    request = pb.GenerateRequest(prompt=text_prompt(), sampling=greedy(20), details=pb.Details(tokens=True))
    response = await stub.Generate(request)
    candidate = response.candidates[0]
    assert [t.token_id for t in candidate.tokens] == ids
    assert candidate.text == text
    assert candidate.finish_reason == pb.FINISH_REASON_LENGTH
    assert response.usage.generated_tokens == 20
    assert 0 < response.usage.first_token_seconds <= response.usage.total_seconds


async def test_a_stream_joins_to_the_whole(stub: Any) -> None:
    sampling = pb.Sampling(temperature=1, seed=5, max_new_tokens=30, ignore_eos=True, n=3)
    whole = await stub.Generate(pb.GenerateRequest(prompt=text_prompt(), sampling=sampling))
    texts, reasons, messages = ["", "", ""], [0, 0, 0], []
    async for message in stub.StreamGenerate(pb.StreamGenerateRequest(prompt=text_prompt(), sampling=sampling)):
        messages.append(message)
        for delta in message.deltas:
            texts[delta.index] += delta.text
            reasons[delta.index] = delta.finish_reason or reasons[delta.index]
    assert texts == [c.text for c in whole.candidates]
    assert reasons == [c.finish_reason for c in whole.candidates]
    assert len(set(texts)) == 3
    assert messages[0].seed == 5 and messages[-1].usage.generated_tokens == 90
    assert not any(m.HasField("usage") for m in messages[:-1])


async def test_the_same_seed_gives_the_same_answer_beside_others(stub: Any) -> None:
    def request(seed: int) -> pb.GenerateRequest:
        return pb.GenerateRequest(
            prompt=text_prompt(), sampling=pb.Sampling(temperature=1.2, seed=seed, max_new_tokens=24, ignore_eos=True)
        )

    alone = (await stub.Generate(request(7))).candidates[0].text
    crowd = await asyncio.gather(*(stub.Generate(request(s)) for s in range(12)))
    assert crowd[7].candidates[0].text == alone


async def test_stop_strings_end_the_text_and_are_not_in_it(stub: Any) -> None:
    whole = (await stub.Generate(pb.GenerateRequest(prompt=text_prompt(), sampling=greedy(40)))).candidates[0].text
    stop = whole[10:13]
    texts: list[str] = []
    last = None
    async for message in stub.StreamGenerate(
        pb.StreamGenerateRequest(prompt=text_prompt(), sampling=greedy(40, stop=[stop, "never there"]))
    ):
        for last in message.deltas:
            texts.append(last.text)
    assert last is not None and last.finish_reason == pb.FINISH_REASON_STOP and last.matched_stop.text == stop
    assert "".join(texts) == whole[: whole.find(stop)]


async def test_stop_ids_end_the_text_and_are_not_in_it(stub: Any) -> None:
    details = pb.Details(tokens=True)
    whole = (
        await stub.Generate(pb.GenerateRequest(prompt=text_prompt(), sampling=greedy(20), details=details))
    ).candidates[0]
    ids = [t.token_id for t in whole.tokens]
    place = next(i for i in range(4, 20) if ids[i] not in ids[:i])
    stopped = await stub.Generate(
        pb.GenerateRequest(prompt=text_prompt(), sampling=greedy(20, stop_token_ids=[ids[place]]), details=details)
    )
    candidate = stopped.candidates[0]
    assert candidate.finish_reason == pb.FINISH_REASON_STOP and candidate.matched_stop.token_id == ids[place]
    assert [t.token_id for t in candidate.tokens] == ids[: place + 1]
    assert whole.text.startswith(candidate.text) and len(candidate.text) < len(whole.text)


async def test_details_report_probabilities_of_the_raw_distribution(stub: Any, model_directory: Path) -> None:
    request = pb.GenerateRequest(
        prompt=text_prompt(),
        sampling=pb.Sampling(temperature=0.3, seed=1, max_new_tokens=1, logit_bias={40: 5.0}),
        details=pb.Details(top_alternatives=4, statistics=True, prompt_token_ids=True),
    )
    response = await stub.Generate(request)
    model = AutoModelForCausalLM.from_pretrained(model_directory)
    logits = model(torch.tensor([list(response.prompt_token_ids)])).logits[0, -1]
    expected = torch.log_softmax(logits, -1)
    token = response.candidates[0].tokens[0]
    assert token.log_prob == pytest.approx(float(expected[token.token_id]), abs=1e-4)
    top = expected.topk(4)
    assert [a.token_id for a in token.alternatives] == top.indices.tolist()
    assert token.statistics.p1 == pytest.approx(float(top.values[0].exp()), abs=1e-5)
    assert token.statistics.entropy == pytest.approx(float(-(expected.exp() * expected).sum()), abs=1e-4)
    assert token.statistics.temperature == pytest.approx(0.3)


async def test_scores_are_those_of_transformers(stub: Any, model_directory: Path) -> None:
    tokenizer, model = (
        AutoTokenizer.from_pretrained(model_directory),
        AutoModelForCausalLM.from_pretrained(model_directory),
    )
    context, continuations = "the fox and", [" the dog", " them. Say", " hello"]
    response = await stub.Score(
        pb.ScoreRequest(
            continuations=pb.ScoreContinuations(
                context=text_prompt(context), continuations=[pb.Continuation(text=c) for c in continuations]
            ),
            token_log_probs=True,
        )
    )
    for continuation, score in zip(continuations, response.scores, strict=True):
        ids = tokenizer(context + continuation)["input_ids"]
        first = len(tokenizer(context)["input_ids"])
        log_probs = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
        parts = [float(log_probs[i - 1, ids[i]]) for i in range(first, len(ids))]
        assert list(score.token_log_probs) == pytest.approx(parts, abs=1e-4)
        assert score.log_prob == pytest.approx(sum(parts), abs=1e-3)
        assert score.is_greedy == all(int(log_probs[i - 1].argmax()) == ids[i] for i in range(first, len(ids)))


async def test_a_whole_text_longer_than_the_context_is_scored_token_by_token(stub: Any, model_directory: Path) -> None:
    tokenizer, model = (
        AutoTokenizer.from_pretrained(model_directory),
        AutoModelForCausalLM.from_pretrained(model_directory),
    )
    text = "the fox and the dog ran to the river. " * 40
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > 256
    expected = 0.0
    for context, continuation in windows(ids, tokenizer.bos_token_id, 256):
        log_probs = torch.log_softmax(model(torch.tensor([(context + continuation)[:-1]])).logits[0], -1)
        for place, token in enumerate(continuation):
            expected += float(log_probs[len(context) + place - 1, token])
    response = await stub.Score(pb.ScoreRequest(text=pb.ScoreText(text=text)))
    assert response.scores[0].token_count == len(ids)
    assert response.scores[0].log_prob == pytest.approx(expected, rel=1e-4)


def test_windows_cover_every_token_once() -> None:
    for size in (1, 5, 6, 7, 12, 13, 20):
        covered: list[int] = []
        for context, continuation in windows(range(size), -1, 6):
            assert context and len(context) + len(continuation) - 1 <= 6
            whole = context + continuation
            assert whole == list(range(whole[-1] - len(whole) + 1, whole[-1] + 1))
            covered += continuation
        assert covered == list(range(size))


async def test_tokenize_shows_segments(stub: Any) -> None:
    prompt = pb.Prompt(instruction=pb.InstructionPrompt(instruction="Say hello", context="to them"))
    response = await stub.Tokenize(pb.TokenizeRequest(prompt=prompt))
    assert response.text == "<s><|user|>Say hello\n\nto them</s><|assistant|>"
    assert "".join(response.pieces) == response.text
    assert len(response.segments) == len(response.token_ids)
    assert {pb.SEGMENT_TEMPLATE, pb.SEGMENT_INSTRUCTION, pb.SEGMENT_CONTEXT} == set(response.segments)


async def test_a_repeated_prompt_is_reused(stub: Any) -> None:
    request = pb.GenerateRequest(prompt=text_prompt("the fox and the dog " * 8), sampling=greedy(2))
    first, second = [await stub.Generate(request) for _ in range(2)]
    assert first.usage.cached_tokens == 0 and second.usage.cached_tokens >= 32
    assert first.candidates[0].text == second.candidates[0].text


async def test_cancelling_frees_what_the_call_held(stub: Any, server: Server) -> None:
    call = stub.StreamGenerate(pb.StreamGenerateRequest(prompt=text_prompt(), sampling=greedy(240)))
    await call.read()
    assert server.engine.stats.running == 1
    call.cancel()
    async with asyncio.timeout(60):
        while server.engine.stats.running or server.parts.guard.in_flight:
            await stub.Tokenize(pb.TokenizeRequest(prompt=text_prompt()))
    load = server.engine.stats
    assert load.free_blocks + load.cached_blocks == load.total_blocks


async def test_a_deadline_returns_what_there_is(stub: Any) -> None:
    sampling = pb.Sampling(max_new_tokens=250, ignore_eos=True, n=8)
    request = pb.GenerateRequest(prompt=text_prompt(), sampling=sampling)
    response: Any
    (response,) = await asyncio.gather(stub.Generate(request, timeout=0.25), return_exceptions=True)
    if isinstance(response, grpc.aio.AioRpcError):
        # On a busy machine not even the margin suffices; the status must say why.
        assert response.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    else:
        reasons = {c.finish_reason for c in response.candidates}
        assert reasons <= {pb.FINISH_REASON_DEADLINE, pb.FINISH_REASON_LENGTH}
