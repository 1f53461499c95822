"""Numbers at the edges of the contract: the last one that is allowed is answered, the next one refused by its field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from pydantic import ValidationError

from ift_serve.client import AsyncClient, Prompt, ServerError
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.v1 import inference_pb2 as pb
from tests.server.conftest import text_prompt

_DENORMAL = 1e-45
_ODD = (float("nan"), float("inf"), -float("inf"))
_BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 10.0),
    "top_p": (_DENORMAL, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0),
    "presence_penalty": (-10.0, 10.0),
    "frequency_penalty": (-10.0, 10.0),
}


def _next(value: float, towards: float) -> float:
    return float(np.nextafter(np.float32(value), np.float32(towards)))


def _request(**sampling: Any) -> pb.GenerateRequest:
    options = {"max_new_tokens": 3, "seed": 1} | sampling
    return pb.GenerateRequest(
        prompt=text_prompt(), sampling=pb.Sampling(**options), details=pb.Details(statistics=True)
    )


async def _code(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


@pytest.mark.parametrize("field", sorted(_BOUNDS))
async def test_floats(stub: Any, field: str) -> None:
    low, high = _BOUNDS[field]
    inside = {low, high, _next(low, high), _next(high, low), (low + high) / 2}
    if low <= 0:
        inside |= {-0.0, _DENORMAL, 1e-38}
    for value in inside:
        answer = await stub.Generate(_request(**{field: value}))
        assert np.float32(getattr(answer.sampling, field)) == np.float32(value)
        assert all(np.isfinite(token.log_prob) for token in answer.candidates[0].tokens), (field, value)
    for value in (_next(low, -100), _next(high, 100), *_ODD):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(_request(**{field: value}))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert f"sampling.{field}" in str(caught.value.details())


async def test_the_lowest_temperatures_are_greedy_where_one_token_leads(stub: Any) -> None:
    greedy = (await stub.Generate(_request(temperature=0, max_new_tokens=12))).candidates[0].text
    for temperature in (_DENORMAL, 1e-40, 1e-38, 1.1754944e-38, 1e-30, 1e-20):
        assert (await stub.Generate(_request(temperature=temperature, max_new_tokens=12))).candidates[0].text == greedy
        truncated = _request(temperature=temperature, max_new_tokens=12, top_p=_DENORMAL, top_k=1, min_p=1)
        assert (await stub.Generate(truncated)).candidates[0].text == greedy


async def test_biases(stub: Any) -> None:
    for value in (-100.0, 100.0, -0.0, _DENORMAL):
        assert await _code(stub.Generate(_request(logit_bias={90: value}))) == "OK"
    for value in (_next(100, 200), _next(-100, -200), *_ODD):
        assert await _code(stub.Generate(_request(logit_bias={90: value}))) == "INVALID_ARGUMENT"


async def test_integers(stub: Any, server: Server) -> None:
    size, most = server.engine.model.vocabulary_size, server.engine.model.max_sequences
    allowed: list[dict[str, Any]] = [
        {"seed": 0},
        {"seed": 2**64 - 1},
        {"seed": 2**63},
        {"top_k": 0},
        {"top_k": 1},
        {"top_k": 2**32 - 1},
        {"n": 1},
        {"n": min(32, most)},
        {"stop_token_ids": [0, size - 1]},
        {"max_new_tokens": 1},
    ]
    for sampling in allowed:
        assert await _code(stub.Generate(_request(**sampling))) == "OK", sampling
    refused: list[dict[str, Any]] = [
        {"n": 0},
        {"n": 33},
        {"n": 2**32 - 1},
        {"stop_token_ids": [size]},
        {"max_new_tokens": 0},
        {"max_new_tokens": 2**32 - 1},
        {"logit_bias": {size: 1.0}},
    ]
    for sampling in refused:
        assert await _code(stub.Generate(_request(**sampling))) == "INVALID_ARGUMENT", sampling
    for priority, code in ((-100, "OK"), (100, "OK"), (-101, "INVALID_ARGUMENT"), (2**31 - 1, "INVALID_ARGUMENT")):
        request = pb.GenerateRequest(prompt=text_prompt(), sampling=pb.Sampling(max_new_tokens=1), priority=priority)
        assert await _code(stub.Generate(request)) == code
    for alternatives, code in ((20, "OK"), (21, "INVALID_ARGUMENT"), (2**32 - 1, "INVALID_ARGUMENT")):
        request = _request()
        request.details.top_alternatives = alternatives
        assert await _code(stub.Generate(request)) == code


async def test_the_room_of_the_context_is_the_last_length_that_is_allowed(stub: Any, server: Server) -> None:
    used = (await stub.Generate(_request())).usage.prompt_tokens
    room = server.engine.model.context_length - used
    assert await _code(stub.Generate(_request(max_new_tokens=room, ignore_eos=True))) == "OK"
    assert await _code(stub.Generate(_request(max_new_tokens=room + 1))) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("seconds", [-1.0, -5e-324, 1e308, *_ODD])
async def test_times_to_drain(server: Server, seconds: float) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}") as client:
        with pytest.raises(ServerError, match="drain_seconds"):
            await client.unload_adapter("a", drain_seconds=seconds)


@pytest.mark.parametrize("seconds", [1e-9, 1e-3, 1e6])
async def test_deadlines(server: Server, seconds: float) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}", retries=0) as client:
        try:
            ended = (
                await client.generate(Prompt.from_text("the fox"), max_new_tokens=2, timeout=seconds)
            ).finish_reason
        except ServerError as error:
            ended = error.code  # type: ignore[assignment]
    allowed = {"length", "eos"} | ({"deadline", "DEADLINE_EXCEEDED"} if seconds < 1 else set())
    assert ended in allowed


@pytest.mark.parametrize("field", ["drain_timeout", "drain_notice", "start_timeout", "adapter_folder_interval"])
@pytest.mark.parametrize("value", [*_ODD, -1.0])
def test_times_of_the_configuration(server_config: Callable[..., ServerConfig], field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        server_config(**{field: value})
