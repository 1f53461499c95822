"""Answers to generation requests: whole, or as server-sent events while they are made."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ift_serve.client import AsyncClient, Delta, InvalidRequestError, ModelInfo, ServerError
from ift_serve.client.aio import AsyncStream
from ift_serve.gateway import details
from ift_serve.gateway.answer_memory import AnswerShare
from ift_serve.gateway.asked import Asked
from ift_serve.gateway.choices import Choice
from ift_serve.gateway.errors import ApiError, invalid, of_client, of_server
from ift_serve.gateway.exchange import Exchange
from ift_serve.sharing.loop_shares import LoopShare

_COMMENT_SECONDS = 15.0
"""Between comments in a stream in which nothing comes, so that nobody on the way takes it for dead."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two kinds of request: names in its answers, and its choices."""

    prefix: str
    whole: str
    chunk: str
    choice: Callable[[int, Asked, Sequence[int]], Choice]


@dataclass(slots=True)
class Generating:
    """One request on its way. ``adapter``: empty for the base model; ``timeout``: seconds."""

    kind: Kind
    client: AsyncClient
    model: ModelInfo
    adapter: str
    questions: list[Asked]
    timeout: float
    most_entries: int
    share: LoopShare
    request_id: str

    async def answer_whole(self, exchange: Exchange, memory: AnswerShare) -> None:
        """All choices in one answer. Raises ApiError."""
        self._check_size()
        begun = int(time.time())
        async with exchange.while_connected():
            choices, results = await self._collect(memory)
        first = results[0]
        told: dict[str, Any] = {
            "id": f"{self.kind.prefix}-{self.request_id}",
            "object": self.kind.whole,
            "created": begun,
            "model": first.so_far.adapter or first.so_far.model or self.model.name,
            "system_fingerprint": _fingerprint(self.model),
            "choices": [choice.whole() for choice in choices],
            "usage": details.usage_of([stream.so_far.usage for stream in results]),
            "ift": {**details.begun(first.so_far), **details.ended(first.so_far)},
        }
        await exchange.answer(msgspec.json.encode(told))

    async def _collect(self, memory: AnswerShare) -> tuple[list[Choice], list[AsyncStream]]:
        """The choices of all prompts, which are asked side by side."""
        listed: list[list[Choice]] = [[] for _ in self.questions]
        entries = 0

        async def collect(place: int, asked: Asked, stream: AsyncStream) -> None:
            nonlocal entries
            own = listed[place]
            first = place * int(asked.options.get("n") or 1)
            async for delta in self._deltas(stream, asked):
                while len(own) <= delta.index:
                    own.append(self.kind.choice(first + len(own), asked, self.model.eos_token_ids))
                entries += len(delta.tokens) * asked.entries_a_token
                if entries > self.most_entries:
                    raise _too_long(self.most_entries)
                memory.take(own[delta.index].add(delta))

        streams = [self._stream(asked) for asked in self.questions]
        try:
            async with asyncio.TaskGroup() as group:
                for place, (asked, stream) in enumerate(zip(self.questions, streams, strict=True)):
                    group.create_task(collect(place, asked, stream))
        except ExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            for stream in streams:
                stream.cancel()
        return [choice for own in listed for choice in own], streams

    async def answer_stream(self, exchange: Exchange, *, include_usage: bool) -> None:
        """Chunks as server-sent events. Raises ApiError only where nothing was sent yet."""
        asked = self.questions[0]
        stream = self._stream(asked)
        deltas = self._deltas(stream, asked)
        async with exchange.while_connected(), contextlib.aclosing(deltas):
            first = await anext(deltas, None)
            headers = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}
            await exchange.begin(200, headers)
            try:
                await self._send(exchange, stream, first, deltas, include_usage)
            except ApiError as error:
                await exchange.write(_event(error.body()))
            await exchange.write(b"", last=True)

    async def _send(
        self,
        exchange: Exchange,
        stream: AsyncStream,
        first: Delta | None,
        deltas: AsyncIterator[Delta],
        include_usage: bool,
    ) -> None:
        choices: dict[int, Choice] = {}
        head = self._head(stream)
        extra: dict[str, Any] = {"ift": details.begun(stream.so_far)}
        async with contextlib.aclosing(_with_pauses(first, deltas)) as coming:
            async for delta in coming:
                if delta is None:
                    await exchange.write(b": still at work\n\n")
                    continue
                if delta.index not in choices:
                    choices[delta.index] = self.kind.choice(delta.index, self.questions[0], self.model.eos_token_ids)
                chunk = {**head, "choices": [choices[delta.index].piece(delta)], **extra}
                extra = {}
                await exchange.write(_event(msgspec.json.encode(chunk)))
        last = {**head, "choices": [], "ift": details.ended(stream.so_far)}
        if include_usage:
            last["usage"] = details.usage_of([stream.so_far.usage])
        if include_usage or self.questions[0].token_details or stream.so_far.conclusion is not None:
            await exchange.write(_event(msgspec.json.encode(last)))
        await exchange.write(b"data: [DONE]\n\n")

    def _head(self, stream: AsyncStream) -> dict[str, Any]:
        return {
            "id": f"{self.kind.prefix}-{self.request_id}",
            "object": self.kind.chunk,
            "created": int(time.time()),
            "model": stream.so_far.adapter or stream.so_far.model or self.model.name,
            "system_fingerprint": _fingerprint(self.model),
        }

    def _stream(self, asked: Asked) -> AsyncStream:
        try:
            return self.client.stream(
                asked.prompt, timeout=self.timeout, keep_tokens=False, adapter=self.adapter, **asked.options
            )
        except (InvalidRequestError, ValueError, TypeError) as error:
            raise of_client(error, asked.names) from None

    async def _deltas(self, stream: AsyncStream, asked: Asked) -> AsyncGenerator[Delta]:
        """What comes, in turns with what comes for others. Leaving early ends the call. Raises ApiError."""
        try:
            async for delta in stream:
                await self.share.take(1 + len(delta.tokens) * asked.entries_a_token)
                yield delta
        except ServerError as error:
            raise of_server(error, asked.names) from None
        finally:
            stream.cancel()

    def _check_size(self) -> None:
        """Refuse an answer that could not be kept, before it is made."""
        default = int(self.model.sampling_defaults.get("max_new_tokens", 0))
        size = 0
        for asked in self.questions:
            tokens = int(asked.options.get("max_new_tokens") or default)
            size += int(asked.options.get("n") or 1) * tokens * asked.entries_a_token
        if size > self.most_entries:
            raise _too_long(self.most_entries)


async def _with_pauses(first: Delta | None, deltas: AsyncIterator[Delta]) -> AsyncGenerator[Delta | None]:
    """The deltas, and None wherever none has come for a while."""
    if first is None:
        return
    yield first
    coming: asyncio.Future[Delta] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(deltas))
            done, _ = await asyncio.wait({coming}, timeout=_COMMENT_SECONDS)
            if not done:
                yield None
                continue
            found, coming = coming, None
            try:
                delta = found.result()
            except StopAsyncIteration:
                return
            yield delta
    finally:
        if coming is not None:
            coming.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, ApiError):
                await coming


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def _fingerprint(model: ModelInfo) -> str:
    return f"fp_{model.fingerprint[:16]}"


def _too_long(most: int) -> ApiError:
    return invalid(
        "logprobs", f"and alternatives of all choices may come to more than {most} entries; ask for fewer, or stream"
    )


def _first(errors: ExceptionGroup) -> Exception:
    """One of several that says what the caller may do."""
    flat: list[Exception] = []
    for error in errors.exceptions:
        flat.append(_first(error) if isinstance(error, ExceptionGroup) else error)
    return next((error for error in flat if isinstance(error, ApiError)), flat[0])
