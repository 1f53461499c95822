"""Registers services by their descriptors, every handler inside the same guard."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor

from ift_serve.server.auth import Role
from ift_serve.server.body import BodyReader
from ift_serve.server.calls import CallGuard
from ift_serve.v1 import adapter_pb2, inference_pb2, model_pb2

INFERENCE = "ift_serve.v1.InferenceService"
MODEL = "ift_serve.v1.ModelService"
ADAPTER = "ift_serve.v1.AdapterService"
ROLES: dict[str, Role] = {INFERENCE: "generate", MODEL: "generate", ADAPTER: "admin"}
_FILES = (inference_pb2, model_pb2, adapter_pb2)


def _snake(name: str) -> str:
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


def _streaming(guard: CallGuard, method: MethodDescriptor, handler: Any, role: Role, reader: BodyReader) -> Any:
    message_class = message_factory.GetMessageClass(method.input_type)

    async def handle(bodies: Any, context: Any) -> AsyncIterator[Any]:
        async with guard.call(context, method.name, role) as call:
            answers = handler(await reader.read(bodies, message_class), call)
            if not hasattr(answers, "__aiter__"):
                answers = await answers
            async for answer in answers:
                yield answer

    return grpc.stream_stream_rpc_method_handler(handle, None, _serialise)


def generic_handlers(guard: CallGuard, implementations: Mapping[str, object], largest: int) -> list[Any]:
    """One handler a service; rpc ``StreamGenerate`` calls ``implementation.stream_generate``.

    ``largest``: bytes of a request message.
    """
    pool = descriptor_pool.Default()
    reader = BodyReader(largest)
    handlers = []
    for name, implementation in implementations.items():
        methods = {}
        for method in pool.FindServiceByName(name).methods:
            wrap = _streaming if method.server_streaming else _unary
            handler = getattr(implementation, _snake(method.name))
            methods[method.name] = wrap(guard, method, handler, ROLES[name], reader)
        handlers.append(grpc.method_handlers_generic_handler(name, methods))
    return handlers
