"""The asyncio client: the same names as the blocking one."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import grpc

from ift_serve.client import convert
from ift_serve.client.checks import Verdicts, check_message, verdicts
from ift_serve.client.connection import DEFAULT_TARGET, Attempts, Connection
from ift_serve.client.errors import ServerError
from ift_serve.client.evaluations import EvaluationProgress, EvaluationReport, ReportPieces, run_message
from ift_serve.client.options import EvaluationOptions, GenerateOptions
from ift_serve.client.types import Adapter, Delta, Generation, ModelInfo, PromptLike, Scores, Tokenization
from ift_serve.v1 import (
    adapter_pb2,
    adapter_pb2_grpc,
    evaluation_pb2_grpc,
    inference_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
from ift_serve.v1 import inference_pb2 as pb


class AsyncStream:
    """A running stream: iterate for its pieces; ``await result()`` is the whole. Leaving it early cancels the call."""

    def __init__(self, start: Callable[[float | None], Any], attempts: Attempts, *, keep_tokens: bool = True) -> None:
        self._start = start
        self._attempts = attempts
        self._accumulator = convert.Accumulator(keep_tokens=keep_tokens)
        self._call: Any = None
        self._pieces = self._run()

    async def _run(self) -> AsyncIterator[Delta]:
        answered = False
        while True:
            self._call = self._start(self._attempts.remaining())
            try:
                async for message in self._call:
                    answered = True
                    for piece in self._accumulator.add(message):
                        yield piece
                return
            except grpc.RpcError as error:
                await asyncio.sleep(self._attempts.pause_after(ServerError.of(error), answered=answered))

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self._pieces

    async def __anext__(self) -> Delta:
        return await anext(self._pieces)

    @property
    def so_far(self) -> Generation:
        """What has come: model, adapter, seed and settings with the first piece, usage and conclusion with the last."""
        return self._accumulator.result

    async def result(self) -> Generation:
        """Everything, once the stream has ended."""
        async for _ in self._pieces:
            pass
        return self._accumulator.result

    def cancel(self) -> None:
        """End the call; the server frees what it holds."""
        if self._call is not None:
            self._call.cancel()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"AsyncStream({sum(len(c.text) for c in self._accumulator.result.candidates)} characters so far)"


class AsyncClient:
    """Calls one server from one event loop. ``timeout``: seconds for a call unless it says otherwise."""

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        token: str | None = None,
        authority: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        server_name: str | None = None,
        timeout: float | None = 120.0,
        retries: int = 3,
        channel: Any = None,
    ) -> None:
        self._connection = Connection(target, token, authority, certificate, key, server_name)
        self._channel: Any = channel or self._opened()
        self._inference: Any = inference_pb2_grpc.InferenceServiceStub(self._channel)
        self._model: Any = model_pb2_grpc.ModelServiceStub(self._channel)
        self._adapters: Any = adapter_pb2_grpc.AdapterServiceStub(self._channel)
        self._evaluation: Any = evaluation_pb2_grpc.EvaluationServiceStub(self._channel)
        self._timeout = timeout
        self._retries = retries

    def _opened(self) -> Any:
        credentials, options = self._connection.credentials(), self._connection.options
        if credentials is None:
            return grpc.aio.insecure_channel(self._connection.target, options)
        return grpc.aio.secure_channel(self._connection.target, credentials, options)

    async def generate(
        self, prompt: PromptLike, *, timeout: float | None = None, **options: Unpack[GenerateOptions]
    ) -> Generation:
        """Whole answers. ``options``: see :class:`GenerateOptions`; ``temperature``, ``max_new_tokens``, ``adapter``...

        ``timeout``: seconds, otherwise that of the client. Raises ServerError.
        """
        request = convert.generate_message(pb.GenerateRequest, prompt, options)
        message, request_id = await self._call(self._inference.Generate, request, timeout)
        return convert.generation(message, request_id)

    def stream(
        self,
        prompt: PromptLike,
        *,
        timeout: float | None = None,
        keep_tokens: bool = True,
        **options: Unpack[GenerateOptions],
    ) -> AsyncStream:
        """Text as it is made. Arguments as in ``generate``. ``keep_tokens``: whether the result has the tokens, too."""
        request = convert.generate_message(pb.StreamGenerateRequest, prompt, options)

        def start(remaining: float | None) -> Any:
            return self._inference.StreamGenerate(
                request, timeout=remaining, metadata=self._connection.metadata_for(request, remaining)
            )

        return AsyncStream(start, Attempts(timeout or self._timeout, self._retries), keep_tokens=keep_tokens)

    async def score(
        self,
        context: PromptLike,
        continuations: Sequence[str | Sequence[int]],
        *,
        token_log_probs: bool = False,
        adapter: str = "",
        priority: int = 0,
        timeout: float | None = None,
    ) -> Scores:
        """Log-probabilities of continuations of one context; a string context is raw text."""
        request = convert.score_message(context, continuations, token_log_probs, priority, adapter)
        return convert.scores((await self._call(self._inference.Score, request, timeout))[0])

    async def score_text(
        self,
        text: str,
        *,
        token_log_probs: bool = False,
        adapter: str = "",
        priority: int = 0,
        timeout: float | None = None,
    ) -> Scores:
        """Log-probability of a whole text, each token once."""
        request = convert.score_text_message(text, token_log_probs, priority, adapter)
        return convert.scores((await self._call(self._inference.Score, request, timeout))[0])

    async def tokenize(self, prompt: PromptLike, *, timeout: float | None = None) -> Tokenization:
        """Token ids and segments of a prompt."""
        request = pb.TokenizeRequest(prompt=convert.prompt_message(prompt))
        return convert.tokenization((await self._call(self._inference.Tokenize, request, timeout))[0])

    async def check(
        self,
        response: str,
        constraints: Sequence[Mapping[str, Any]],
        *,
        prompt: str = "",
        adapter: str = "",
        timeout: float | None = None,
    ) -> Verdicts:
        """Whether a response keeps constraints such as ``{"type": "max_words", "limit": 50}``.

        ``adapter``: whose adherence head is asked as well, how likely the response follows ``prompt``.
        """
        request = check_message(response, constraints, prompt, adapter)
        return verdicts((await self._call(self._evaluation.Check, request, timeout))[0])

    async def evaluate(
        self, tasks: Mapping[str, str] | Sequence[str], **options: Unpack[EvaluationOptions]
    ) -> AsyncIterator[EvaluationProgress | EvaluationReport]:
        """Have the server evaluate itself: progress, then the report. Needs the role admin.

        ``tasks``: names, or the content of each one's file by its name. ``options``: see
        :class:`EvaluationOptions`. Closing the iterator ends the evaluation.
        """
        request = run_message(tasks, options)
        call = self._evaluation.Run(request, metadata=self._connection.metadata)
        pieces = ReportPieces()
        try:
            async for message in call:
                if (found := pieces.add(message)) is not None:
                    yield found
        except grpc.RpcError as error:
            raise ServerError.of(error) from None
        finally:
            call.cancel()

    async def load_adapter(self, name: str, path: str, *, timeout: float | None = None) -> Adapter:
        """Load a directory below one of the server's adapter roots; the version, ready. Needs the role admin."""
        request = convert.load_message(name, path)
        return convert.adapter((await self._call(self._adapters.LoadAdapter, request, timeout))[0].adapter)

    async def unload_adapter(
        self, reference: str, *, drain_seconds: float | None = None, timeout: float | None = None
    ) -> list[Adapter]:
        """Unload ``name`` or ``name@version`` once its requests are done; what was unloaded. Needs the role admin."""
        request = convert.unload_message(reference, drain_seconds)
        return [
            convert.adapter(m) for m in (await self._call(self._adapters.UnloadAdapter, request, timeout))[0].adapters
        ]

    async def adapters(self, *, timeout: float | None = None) -> list[Adapter]:
        """All adapters that are served or drain, by name, newest version first. Needs the role admin."""
        request = adapter_pb2.ListAdaptersRequest()
        return [
            convert.adapter(m) for m in (await self._call(self._adapters.ListAdapters, request, timeout))[0].adapters
        ]

    async def adapter(self, reference: str, *, timeout: float | None = None) -> Adapter:
        """The newest version of ``name``, or ``name@version``. Needs the role admin."""
        request = convert.get_message(reference)
        return convert.adapter((await self._call(self._adapters.GetAdapter, request, timeout))[0].adapter)

    async def watch_adapters(self) -> AsyncIterator[Adapter]:
        """All adapters, then every change, until the iterator is closed. Needs the role admin."""
        call = self._adapters.WatchAdapters(adapter_pb2.WatchAdaptersRequest(), metadata=self._connection.metadata)
        try:
            async for message in call:
                yield convert.adapter(message.adapter)
        except grpc.RpcError as error:
            raise ServerError.of(error) from None
        finally:
            call.cancel()

    async def model(self, *, timeout: float | None = None) -> ModelInfo:
        """The served model, its limits and its load."""
        return convert.model_info((await self._call(self._model.GetModel, model_pb2.GetModelRequest(), timeout))[0])

    async def health(self, *, timeout: float | None = None) -> str:
        """What the standard health service says: SERVING, or NOT_SERVING while it starts, drains or restarts."""
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        answer = (await self._call(stub.Check, health_pb2.HealthCheckRequest(), timeout))[0]
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    async def wait_until_ready(self, timeout: float = 60.0) -> ModelInfo:
        """Wait until the server answers. Raises ServerError UNAVAILABLE."""
        try:
            async with asyncio.timeout(timeout):
                await self._channel.channel_ready()
        except TimeoutError:
            raise ServerError("UNAVAILABLE", f"no server at {self._connection.target} after {timeout:g} s") from None
        return await self.model(timeout=timeout)

    async def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        await self._channel.close()

    def for_caller(self, token: str | None, metadata: Sequence[tuple[str, str]] = ()) -> AsyncClient:
        """The same connection in another caller's name: closing one closes both. ``metadata``: what calls carry too.

        Raises InvalidRequestError for what HTTP/2 does not carry.
        """
        other = copy.copy(self)
        other._connection = dataclasses.replace(self._connection, token=token, more_metadata=tuple(metadata))
        return other

    async def _call(self, method: Any, request: Any, timeout: float | None) -> tuple[Any, str]:
        attempts = Attempts(timeout or self._timeout, self._retries)
        while True:
            remaining = attempts.remaining()
            call = method(request, timeout=remaining, metadata=self._connection.metadata_for(request, remaining))
            try:
                message = await call
            except grpc.RpcError as error:
                await asyncio.sleep(attempts.pause_after(ServerError.of(error)))
                continue
            trailing = {str(k): v for k, v in (await call.trailing_metadata() or ())}
            return message, str(trailing.get("x-request-id", ""))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._connection!r})"
