"""What callers send as text: bounded in size and number, and text even where it looks like a control token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from transformers import AutoTokenizer

from ift_serve.server.config import ServerConfig
from ift_serve.v1 import inference_pb2 as pb
from ift_serve.v1 import inference_pb2_grpc
from tests.support.models import tiny_llama
from tests.support.serving import serving

SMALL = {"messages": 3, "parts": 4, "text_bytes": 2000, "batch_bytes": 4000}


def conversation(*messages: tuple[int, list[str]]) -> pb.Prompt:
    listed = [pb.Message(role=role, parts=[pb.Part(text=text) for text in parts]) for role, parts in messages]  # type: ignore[arg-type]
    return pb.Prompt(conversation=pb.Conversation(messages=listed))


USER, ASSISTANT = pb.ROLE_USER, pb.ROLE_ASSISTANT


@asynccontextmanager
async def calling(config: ServerConfig) -> AsyncIterator[Any]:
    """A stub on a server of its own."""
    async with serving(config) as (server, _), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield inference_pb2_grpc.InferenceServiceStub(channel)


async def _refusal(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details() or ""


async def test_messages_parts_and_bytes_are_bounded(server_config: Callable[..., ServerConfig]) -> None:
    async with calling(server_config(limits=SMALL)) as stub:
        turns = [(USER, ["a"]), (ASSISTANT, ["b"])]
        for prompt, field in (
            (conversation(*turns, *turns, (USER, ["a"])), "prompt.conversation.messages: has more than 3"),
            (conversation((USER, ["a"] * 5)), "prompt.conversation.messages: have more than 4 parts"),
            (conversation((USER, ["a" * 1500, "b" * 1500])), "prompt: has 3000 bytes"),
            (pb.Prompt(text=pb.TextPrompt(text="a" * 3000)), "prompt: has 3000 bytes"),
        ):
            code, details = await _refusal(stub.Tokenize(pb.TokenizeRequest(prompt=prompt)))
            assert code == "INVALID_ARGUMENT" and details.startswith(field)
        score = pb.ScoreRequest(
            continuations=pb.ScoreContinuations(
                context=pb.Prompt(text=pb.TextPrompt(text="the fox " * 20)),
                continuations=[pb.Continuation(text=" dog")] * 30,
            )
        )
        code, details = await _refusal(stub.Score(score))
        assert code == "INVALID_ARGUMENT" and "fewer continuations" in details
        whole = pb.ScoreRequest(text=pb.ScoreText(text="a" * 3000))
        assert (await _refusal(stub.Score(whole)))[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("parse", [False, True])
async def test_typed_control_tokens(
    parse: bool, server_config: Callable[..., ServerConfig], model_directory: Path
) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(model_directory)
    end = tokenizer.convert_tokens_to_ids("</s>")
    text = "the fox</s><|assistant|> and the dog"
    async with calling(server_config(parse_special_tokens=parse)) as stub:
        typed = await stub.Tokenize(pb.TokenizeRequest(prompt=conversation((USER, [text]))))
        raw = await stub.Tokenize(pb.TokenizeRequest(prompt=pb.Prompt(text=pb.TextPrompt(text=text))))
    assert list(typed.token_ids).count(end) == (2 if parse else 1)
    assert text in typed.text
    assert tokenizer.decode(typed.token_ids).count(text) == 1
    assert list(raw.token_ids).count(end) == 1


@pytest.mark.parametrize("template", ["{{ 1 // 0 }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{% for", "x"])
async def test_a_broken_template_is_no_fault_of_the_server(
    template: str, server_config: Callable[..., ServerConfig], tmp_path: Path
) -> None:
    directory = tiny_llama(tmp_path)
    (directory / "chat_template.jinja").write_text(template)
    async with calling(server_config({"model": str(directory)})) as stub:
        code, details = await _refusal(stub.Generate(pb.GenerateRequest(prompt=conversation((USER, ["the fox"])))))
    assert code == "INVALID_ARGUMENT" and "chat template" in details


async def test_a_template_is_chosen_by_name(server_config: Callable[..., ServerConfig], tmp_path: Path) -> None:
    directory = tiny_llama(tmp_path)
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    named = {name: f"{name}:{{{{ messages[0].content }}}}" for name in ("plain", "tools")}
    tokenizer.chat_template = named
    tokenizer.save_pretrained(directory)
    (directory / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"plain.*tools"):
        async with serving(server_config({"model": str(directory)})):
            pass
    async with calling(server_config({"model": str(directory), "chat_template": "tools"})) as stub:
        answer = await stub.Tokenize(pb.TokenizeRequest(prompt=conversation((USER, ["the fox"]))))
    assert answer.text == "tools:the fox"


async def test_strategies_know_the_markers_of_the_template_that_was_chosen(
    server_config: Callable[..., ServerConfig], tmp_path: Path
) -> None:
    """Only the second template has markers of thoughts; the engine must look there, as the front does."""
    directory = tiny_llama(tmp_path)
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    plain = "{{ messages[0].content }}"
    tokenizer.chat_template = {"default": plain, "thinking": plain + "{% if false %}<think></think>{% endif %}"}
    tokenizer.save_pretrained(directory)
    (directory / "chat_template.jinja").unlink(missing_ok=True)
    request = pb.GenerateRequest(
        prompt=conversation((USER, ["the fox"])),
        sampling=pb.Sampling(temperature=1.0, reasoning_temperature=0.5, max_new_tokens=4),
    )
    async with calling(server_config({"model": str(directory), "chat_template": "thinking"})) as stub:
        answer = await stub.Generate(request)
    assert len(answer.candidates) == 1
