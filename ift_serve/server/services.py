"""Registers services by their descriptors, every handler inside the same guard."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor

from ift_serve.server.auth import Role
from ift_serve.server.body import BodyReader
from ift_serve.server.call_guard import CallGuard
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


def snake(name: str) -> str:
    """What the method of an rpc is called."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _serialise(message: Any) -> bytes:
    """A handler that makes a large answer serialises it piece by piece itself."""
    return message if isinstance(message, bytes) else bytes(message.SerializeToString())


def _unary(guard: CallGuard, method: MethodDescriptor, handler: Any, role: Role, reader: BodyReader) -> Any:
    message_class = message_factory.GetMessageClass(method.input_type)

    async def handle(bodies: Any, context: Any) -> Any:
        async with guard.call(context, method.name, role) as call:
            return await handler(await reader.read(bodies, message_class), call)

    # To the wire a stream of one message and a single message are the same; only a stream is read when asked.
    return grpc.stream_unary_rpc_method_handler(handle, None, _serialise)


def _streaming(
    guard: CallGuard, method: MethodDescriptor, handler: Any, role: Role, reader: BodyReader, patience: float
) -> Any:
    message_class = message_factory.GetMessageClass(method.input_type)

    async def handle(bodies: Any, context: Any) -> None:
        async with guard.call(context, method.name, role) as call:
            answers = handler(await reader.read(bodies, message_class), call)
            if not hasattr(answers, "__aiter__"):
                answers = await answers
            async with contextlib.aclosing(answers):
                async for answer in answers:
                    await _write(context, answer, patience)

    return grpc.stream_stream_rpc_method_handler(handle, None, _serialise)


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
    """One handler a service; rpc ``StreamGenerate`` calls ``implementation.stream_generate``.

    ``largest``: bytes of a request message. ``patience``: seconds that a stream may be left unread.
    """
    pool = descriptor_pool.Default()
    reader = BodyReader(largest)
    handlers = []
    for name, implementation in implementations.items():
        methods = {}
        for method in pool.FindServiceByName(name).methods:
            handler = getattr(implementation, snake(method.name))
            role = METHOD_ROLES.get((name, method.name), ROLES[name])
            methods[method.name] = (
                _streaming(guard, method, handler, role, reader, patience)
                if method.server_streaming
                else _unary(guard, method, handler, role, reader)
            )
        handlers.append(grpc.method_handlers_generic_handler(name, methods))
    return handlers
