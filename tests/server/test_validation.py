"""Whatever is wrong with a request is named, with INVALID_ARGUMENT, and nothing else notices."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from ift_serve.v1 import inference_pb2 as pb
from tests.server.conftest import greedy, text_prompt, trailing

NAN, INFINITY = float("nan"), float("inf")


def _violated(error: grpc.aio.AioRpcError) -> list[str]:
    packed = trailing(error)["grpc-status-details-bin"]
    bad = error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(packed).details:
        detail.Unpack(bad)
    return [v.field for v in bad.field_violations]


async def _refused(call: Any) -> tuple[str, list[str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert trailing(caught.value)["x-request-id"]
    return caught.value.code().name, _violated(caught.value)


@pytest.mark.parametrize(
    ("field", "sampling"),
    [
        ("sampling.temperature", {"temperature": NAN}),
        ("sampling.temperature", {"temperature": -0.1}),
        ("sampling.temperature", {"temperature": INFINITY}),
        ("sampling.top_p", {"top_p": 0.0}),
        ("sampling.top_p", {"top_p": 1.5}),
        ("sampling.min_p", {"min_p": -1.0}),
        ("sampling.repetition_penalty", {"repetition_penalty": 0.0}),
        ("sampling.presence_penalty", {"presence_penalty": 11.0}),
        ("sampling.frequency_penalty", {"frequency_penalty": NAN}),
        ("sampling.logit_bias[300]", {"logit_bias": {300: 1.0}}),
        ("sampling.logit_bias[3]", {"logit_bias": {3: NAN}}),
        ("sampling.max_new_tokens", {"max_new_tokens": 0}),
        ("sampling.max_new_tokens", {"max_new_tokens": 10_000}),
        ("sampling.stop[1]", {"stop": ["a", ""]}),
        ("sampling.stop[0]", {"stop": ["a" * 300]}),
        ("sampling.stop", {"stop": ["a"] * 17}),
        ("sampling.stop_token_ids[0]", {"stop_token_ids": [5000]}),
        ("sampling.n", {"n": 0}),
        ("sampling.n", {"n": 1000}),
    ],
)
async def test_sampling(stub: Any, field: str, sampling: dict[str, Any]) -> None:
    request = pb.GenerateRequest(prompt=text_prompt(), sampling=pb.Sampling(**sampling))
    assert await _refused(stub.Generate(request)) == ("INVALID_ARGUMENT", [field])


@pytest.mark.parametrize(
    ("field", "prompt"),
    [
        ("prompt", pb.Prompt()),
        ("prompt.instruction.instruction", pb.Prompt(instruction=pb.InstructionPrompt(context="x"))),
        ("prompt.conversation.messages", pb.Prompt(conversation=pb.Conversation())),
        (
            "prompt.conversation.messages[0].role",
            pb.Prompt(conversation=pb.Conversation(messages=[pb.Message(role=17, parts=[pb.Part(text="x")])])),  # type: ignore[arg-type]
        ),
        (
            "prompt.conversation.messages[0].parts",
            pb.Prompt(conversation=pb.Conversation(messages=[pb.Message(role=pb.ROLE_USER)])),
        ),
        ("prompt.tokens.token_ids", pb.Prompt(tokens=pb.TokensPrompt())),
        ("prompt.tokens.token_ids[1]", pb.Prompt(tokens=pb.TokensPrompt(token_ids=[1, 9999]))),
        (
            "prompt.tokens.segments",
            pb.Prompt(tokens=pb.TokensPrompt(token_ids=[1, 2], segments=[pb.SEGMENT_INSTRUCTION])),
        ),
        ("prompt.tokens.segments[0]", pb.Prompt(tokens=pb.TokensPrompt(token_ids=[1], segments=[99]))),  # type: ignore[list-item]
        ("prompt.text.text", pb.Prompt(text=pb.TextPrompt(without_special_tokens=True))),
        ("prompt", text_prompt("the fox " * 400)),
    ],
)
async def test_prompts(stub: Any, field: str, prompt: pb.Prompt) -> None:
    assert await _refused(stub.Generate(pb.GenerateRequest(prompt=prompt))) == ("INVALID_ARGUMENT", [field])
    assert await _refused(stub.StreamGenerate(pb.StreamGenerateRequest(prompt=prompt)).read()) == (
        "INVALID_ARGUMENT",
        [field],
    )


@pytest.mark.parametrize(
    ("field", "request_message"),
    [
        ("kind", pb.ScoreRequest()),
        ("continuations.continuations", pb.ScoreRequest(continuations=pb.ScoreContinuations(context=text_prompt()))),
        (
            "continuations.continuations[0]",
            pb.ScoreRequest(
                continuations=pb.ScoreContinuations(context=text_prompt(), continuations=[pb.Continuation()])
            ),
        ),
        (
            "continuations.continuations[0].tokens.token_ids",
            pb.ScoreRequest(
                continuations=pb.ScoreContinuations(
                    context=text_prompt(), continuations=[pb.Continuation(tokens=pb.TokenIds())]
                )
            ),
        ),
        ("text.text", pb.ScoreRequest(text=pb.ScoreText())),
    ],
)
async def test_scores(stub: Any, field: str, request_message: pb.ScoreRequest) -> None:
    assert await _refused(stub.Score(request_message)) == ("INVALID_ARGUMENT", [field])


async def test_other_fields(stub: Any) -> None:
    request = pb.GenerateRequest(prompt=text_prompt(), priority=101)
    assert await _refused(stub.Generate(request)) == ("INVALID_ARGUMENT", ["priority"])
    request = pb.GenerateRequest(prompt=text_prompt(), details=pb.Details(top_alternatives=21))
    assert await _refused(stub.Generate(request)) == ("INVALID_ARGUMENT", ["details.top_alternatives"])
    request = pb.GenerateRequest(prompt=text_prompt(), adapter="poet")
    assert await _refused(stub.Generate(request)) == ("NOT_FOUND", ["adapter"])


async def test_bad_text_is_named_by_its_field(server: Any) -> None:
    good = pb.GenerateRequest(prompt=text_prompt("abc"), sampling=pb.Sampling(stop=["x", "QQ"]))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        method = channel.unary_unary("/ift_serve.v1.InferenceService/Generate")  # type: ignore[call-arg]
        assert await _refused(method(good.SerializeToString().replace(b"abc", b"a\xff\xfe"))) == (
            "INVALID_ARGUMENT",
            ["prompt.text.text"],
        )
        assert await _refused(method(good.SerializeToString().replace(b"QQ", b"\xc3\x28"))) == (
            "INVALID_ARGUMENT",
            ["sampling.stop[1]"],
        )
        assert await _refused(method(b"\x0a\xff\xff\xff")) == ("INVALID_ARGUMENT", ["request"])


async def test_bad_requests_disturb_nobody(stub: Any) -> None:
    request = pb.GenerateRequest(prompt=text_prompt(), sampling=greedy(30))
    alone = (await stub.Generate(request)).candidates[0].text
    running = stub.Generate(request)
    for _ in range(5):
        await _refused(stub.Generate(pb.GenerateRequest()))
    assert (await running).candidates[0].text == alone
