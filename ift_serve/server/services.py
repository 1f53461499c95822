"""Registers services by their descriptors, every handler inside the same guard."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory

from ift_serve.server.auth import Role
from ift_serve.server.body import BodyReader
from ift_serve.server.call_guard import Call, CallGuard
from ift_serve.server.errors import StatusError
from ift_serve.v1 import adapter_pb2, evaluation_pb2, inference_pb2, model_pb2

INFERENCE = "ift_serve.v1.InferenceService"
MODEL = "ift_serve.v1.ModelService"
ADAPTER = "ift_serve.v1.AdapterService"
EVALUATION = "ift_serve.v1.EvaluationService"
ROLES: dict[str, Role] = {INFERENCE: "generate", MODEL: "generate", ADAPTER: "admin", EVALUATION: "generate"}
METHOD_ROLES: dict[tuple[str, str], Role] = {(EVALUATION, "Run"): "admin"}
"""Rpcs that need another role than their service."""
_FILES = (inference_pb2, model_pb2, adapter_pb2, evaluation_pb2)
RPC_NAMES = {
    f"/{service}/{method.name}": method.server_streaming
    for service in ROLES
    for method in descriptor_pool.Default().FindServiceByName(service).methods
}
"""Whether an rpc answers with a stream, by its path."""


def snake(name: str) -> str:
    """What the method of an rpc is called."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@dataclass(frozen=True, slots=True)
class Rpc:
    """One rpc: who may call it, the message it takes, and what answers: a message, or if it ``streams``, several."""

    service: str
    name: str
    role: Role
    request: type[Any]
    handler: Any
    streams: bool

    @property
    def path(self) -> str:
        """What HTTP/2 calls it."""
        return f"/{self.service}/{self.name}"

    async def answer(self, request: Any, call: Call) -> bytes:
        """The one answer, serialised."""
        return _serialise(await self.handler(request, call))

    async def answers(self, request: Any, call: Call) -> AsyncGenerator[bytes, None]:
        """The answers of one that streams, serialised."""
        answers = self.handler(request, call)
        if not hasattr(answers, "__aiter__"):
            answers = await answers
        async with contextlib.aclosing(answers):
            async for answer in answers:
                yield _serialise(answer)


def rpcs(implementations: Mapping[str, object]) -> list[Rpc]:
    """All rpcs of the services; of ``StreamGenerate``, ``implementation.stream_generate`` is what answers."""
    pool = descriptor_pool.Default()
    found = []
    for service, implementation in implementations.items():
        for method in pool.FindServiceByName(service).methods:
            role = METHOD_ROLES.get((service, method.name), ROLES[service])
            request = message_factory.GetMessageClass(method.input_type)
            handler = getattr(implementation, snake(method.name))
            found.append(Rpc(service, method.name, role, request, handler, method.server_streaming))
    return found


def _serialise(message: Any) -> bytes:
    """A handler that makes a large answer serialises it piece by piece itself."""
    return message if isinstance(message, bytes) else bytes(message.SerializeToString())


def _unary(guard: CallGuard, rpc: Rpc, reader: BodyReader) -> Any:
    async def handle(bodies: Any, context: Any) -> Any:
        async with guard.call(context, rpc.name, rpc.role, rpc.service) as call:
            return await rpc.answer(await reader.read(bodies, rpc.request), call)

    # To the wire a stream of one message and a single message are the same; only a stream is read when asked.
    return grpc.stream_unary_rpc_method_handler(handle, None, None)


def _streaming(guard: CallGuard, rpc: Rpc, reader: BodyReader, patience: float) -> Any:
    async def handle(bodies: Any, context: Any) -> None:
        async with guard.call(context, rpc.name, rpc.role, rpc.service) as call:
            request = await reader.read(bodies, rpc.request)
            async with contextlib.aclosing(rpc.answers(request, call)) as answers:
                async for answer in answers:
                    await _write(context, answer, patience)

    return grpc.stream_stream_rpc_method_handler(handle, None, None)


async def _write(context: Any, answer: Any, patience: float) -> None:
    """Send one message of a stream. Raises StatusError when the caller reads nothing for so many seconds."""
    try:
        async with asyncio.timeout(patience):
            await context.write(answer)
    except TimeoutError:
        raise StatusError(grpc.StatusCode.ABORTED, f"the answer was not read for {patience:g} seconds") from None


def generic_handlers(
    guard: CallGuard, implementations: Mapping[str, object], largest: int, patience: float = 60.0
) -> list[Any]:
    """One handler a service.

    ``largest``: bytes of a request message. ``patience``: seconds that a stream may be left unread.
    """
    reader = BodyReader(largest)
    handlers: dict[str, dict[str, Any]] = {name: {} for name in implementations}
    for rpc in rpcs(implementations):
        handlers[rpc.service][rpc.name] = (
            _streaming(guard, rpc, reader, patience) if rpc.streams else _unary(guard, rpc, reader)
        )
    return [grpc.method_handlers_generic_handler(name, methods) for name, methods in handlers.items()]
