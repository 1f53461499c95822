"""The blocking client."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
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


class Stream:
    """A running stream: iterate for its pieces; ``result()`` is the whole. Leaving it early cancels the call."""

    def __init__(self, start: Callable[[float | None], Any], attempts: Attempts, *, keep_tokens: bool = True) -> None:
        self._start = start
        self._attempts = attempts
        self._accumulator = convert.Accumulator(keep_tokens=keep_tokens)
        self._call: Any = None
        self._pieces = self._run()

    def _run(self) -> Iterator[Delta]:
        answered = False
        while True:
            self._call = self._start(self._attempts.remaining())
            try:
                for message in self._call:
                    answered = True
                    yield from self._accumulator.add(message)
                return
            except grpc.RpcError as error:
                time.sleep(self._attempts.pause_after(ServerError.of(error), answered=answered))

    def __iter__(self) -> Iterator[Delta]:
        return self._pieces

    def __next__(self) -> Delta:
        return next(self._pieces)

    @property
    def so_far(self) -> Generation:
        """What has come: model, adapter, seed and settings with the first piece, usage and conclusion with the last."""
        return self._accumulator.result

    def result(self) -> Generation:
        """Everything, once the stream has ended."""
        for _ in self._pieces:
            pass
        return self._accumulator.result

    def cancel(self) -> None:
        """End the call; the server frees what it holds."""
        if self._call is not None:
            self._call.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"Stream({sum(len(c.text) for c in self._accumulator.result.candidates)} characters so far)"


class Client:
    """Calls one server. Thread-safe. ``timeout``: seconds for a call unless it says otherwise; None waits for ever."""

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
    ) -> None:
        self._connection = Connection(target, token, authority, certificate, key, server_name)
        credentials, options = self._connection.credentials(), self._connection.options
        self._channel = (
            grpc.insecure_channel(target, options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options)
        )
        self._inference = inference_pb2_grpc.InferenceServiceStub(self._channel)
        self._model = model_pb2_grpc.ModelServiceStub(self._channel)
        self._adapters = adapter_pb2_grpc.AdapterServiceStub(self._channel)
        self._evaluation = evaluation_pb2_grpc.EvaluationServiceStub(self._channel)
        self._timeout = timeout
        self._retries = retries

    def generate(
        self, prompt: PromptLike, *, timeout: float | None = None, **options: Unpack[GenerateOptions]
    ) -> Generation:
        """Whole answers. ``options``: see :class:`GenerateOptions`; ``temperature``, ``max_new_tokens``, ``adapter``...

        ``timeout``: seconds, otherwise that of the client. Raises ServerError.
        """
        request = convert.generate_message(pb.GenerateRequest, prompt, options)
        message, request_id = self._call(self._inference.Generate, request, timeout)
        return convert.generation(message, request_id)

    def stream(
        self,
        prompt: PromptLike,
        *,
        timeout: float | None = None,
        keep_tokens: bool = True,
        **options: Unpack[GenerateOptions],
    ) -> Stream:
        """Text as it is made. Arguments as in ``generate``. ``keep_tokens``: whether the result has the tokens, too."""
        request = convert.generate_message(pb.StreamGenerateRequest, prompt, options)

        def start(remaining: float | None) -> Any:
            return self._inference.StreamGenerate(
                request, timeout=remaining, metadata=self._connection.metadata_for(request, remaining)
            )

        return Stream(start, Attempts(timeout or self._timeout, self._retries), keep_tokens=keep_tokens)

    def score(
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
        return convert.scores(self._call(self._inference.Score, request, timeout)[0])

    def score_text(
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
        return convert.scores(self._call(self._inference.Score, request, timeout)[0])

    def tokenize(self, prompt: PromptLike, *, timeout: float | None = None) -> Tokenization:
        """Token ids and segments of a prompt."""
        request = pb.TokenizeRequest(prompt=convert.prompt_message(prompt))
        return convert.tokenization(self._call(self._inference.Tokenize, request, timeout)[0])

    def check(
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
        return verdicts(self._call(self._evaluation.Check, request, timeout)[0])

    def evaluate(
        self, tasks: Mapping[str, str] | Sequence[str], **options: Unpack[EvaluationOptions]
    ) -> Iterator[EvaluationProgress | EvaluationReport]:
        """Have the server evaluate itself: progress, then the report. Needs the role admin.

        ``tasks``: names, or the content of each one's file by its name. ``options``: see
        :class:`EvaluationOptions`. Closing the iterator ends the evaluation.
        """
        request = run_message(tasks, options)
        call = self._evaluation.Run(request, metadata=self._connection.metadata)
        pieces = ReportPieces()
        try:
            for message in call:
                if (found := pieces.add(message)) is not None:
                    yield found
        except grpc.RpcError as error:
            raise ServerError.of(error) from None
        finally:
            call.cancel()  # type: ignore[no-untyped-call]

    def load_adapter(self, name: str, path: str, *, timeout: float | None = None) -> Adapter:
        """Load a directory below one of the server's adapter roots; the version, ready. Needs the role admin."""
        request = convert.load_message(name, path)
        return convert.adapter((self._call(self._adapters.LoadAdapter, request, timeout))[0].adapter)

    def unload_adapter(
        self, reference: str, *, drain_seconds: float | None = None, timeout: float | None = None
    ) -> list[Adapter]:
        """Unload ``name`` or ``name@version`` once its requests are done; what was unloaded. Needs the role admin."""
        request = convert.unload_message(reference, drain_seconds)
        return [convert.adapter(m) for m in (self._call(self._adapters.UnloadAdapter, request, timeout))[0].adapters]

    def adapters(self, *, timeout: float | None = None) -> list[Adapter]:
        """All adapters that are served or drain, by name, newest version first. Needs the role admin."""
        request = adapter_pb2.ListAdaptersRequest()
        return [convert.adapter(m) for m in (self._call(self._adapters.ListAdapters, request, timeout))[0].adapters]

    def adapter(self, reference: str, *, timeout: float | None = None) -> Adapter:
        """The newest version of ``name``, or ``name@version``. Needs the role admin."""
        request = convert.get_message(reference)
        return convert.adapter((self._call(self._adapters.GetAdapter, request, timeout))[0].adapter)

    def watch_adapters(self) -> Iterator[Adapter]:
        """All adapters, then every change, until the iterator is closed. Needs the role admin."""
        call = self._adapters.WatchAdapters(adapter_pb2.WatchAdaptersRequest(), metadata=self._connection.metadata)
        try:
            for message in call:
                yield convert.adapter(message.adapter)
        except grpc.RpcError as error:
            raise ServerError.of(error) from None
        finally:
            call.cancel()  # type: ignore[no-untyped-call]

    def model(self, *, timeout: float | None = None) -> ModelInfo:
        """The served model, its limits and its load."""
        return convert.model_info(self._call(self._model.GetModel, model_pb2.GetModelRequest(), timeout)[0])

    def health(self, *, timeout: float | None = None) -> str:
        """What the standard health service says: SERVING, or NOT_SERVING while it starts, drains or restarts."""
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        answer = (self._call(stub.Check, health_pb2.HealthCheckRequest(), timeout))[0]
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def wait_until_ready(self, timeout: float = 60.0) -> ModelInfo:
        """Wait until the server answers. Raises ServerError UNAVAILABLE."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout)
        except grpc.FutureTimeoutError:
            raise ServerError("UNAVAILABLE", f"no server at {self._connection.target} after {timeout:g} s") from None
        return self.model(timeout=timeout)

    def close(self) -> None:
        """Close the connection; calls in flight are cancelled."""
        self._channel.close()

    def for_caller(self, token: str | None, metadata: Sequence[tuple[str, str]] = ()) -> Client:
        """The same connection in another caller's name: closing one closes both. ``metadata``: what calls carry too.

        Raises InvalidRequestError for what HTTP/2 does not carry.
        """
        other = copy.copy(self)
        other._connection = dataclasses.replace(self._connection, token=token, more_metadata=tuple(metadata))
        return other

    def _call(self, method: Any, request: Any, timeout: float | None) -> tuple[Any, str]:
        attempts = Attempts(timeout or self._timeout, self._retries)
        while True:
            remaining = attempts.remaining()
            try:
                message, call = method.with_call(
                    request, timeout=remaining, metadata=self._connection.metadata_for(request, remaining)
                )
            except grpc.RpcError as error:
                time.sleep(attempts.pause_after(ServerError.of(error)))
                continue
            trailing = dict(call.trailing_metadata() or ())
            return message, str(trailing.get("x-request-id", ""))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._connection!r})"
