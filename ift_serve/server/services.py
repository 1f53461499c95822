"""Registers services by their descriptors, every handler inside the same guard."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor

from ift_serve.server.auth import Role
from ift_serve.server.calls import CallGuard
from ift_serve.server.decoding import decoder, raise_if_error
from ift_serve.v1 import adapter_pb2, inference_pb2, model_pb2

INFERENCE = "ift_serve.v1.InferenceService"
MODEL = "ift_serve.v1.ModelService"
ADAPTER = "ift_serve.v1.AdapterService"
ROLES: dict[str, Role] = {INFERENCE: "generate", MODEL: "generate", ADAPTER: "admin"}
_FILES = (inference_pb2, model_pb2, adapter_pb2)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _serialise(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _unary(guard: CallGuard, method: MethodDescriptor, handler: Any, role: Role) -> Any:
    async def handle(request: Any, context: Any) -> Any:
        async with guard.call(context, method.name, role) as call:
            raise_if_error(request)
            return await handler(request, call)

    return handle


def _streaming(guard: CallGuard, method: MethodDescriptor, handler: Any, role: Role) -> Any:
    async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
        async with guard.call(context, method.name, role) as call:
            raise_if_error(request)
            answers = handler(request, call)
            if not hasattr(answers, "__aiter__"):
                answers = await answers
            async for answer in answers:
                yield answer

    return handle


def generic_handlers(guard: CallGuard, implementations: Mapping[str, object]) -> list[Any]:
    """One handler a service; rpc ``StreamGenerate`` calls ``implementation.stream_generate``."""
    pool = descriptor_pool.Default()
    handlers = []
    for name, implementation in implementations.items():
        methods = {}
        for method in pool.FindServiceByName(name).methods:
            make, wrap = (
                (grpc.unary_stream_rpc_method_handler, _streaming)
                if method.server_streaming
                else (grpc.unary_unary_rpc_method_handler, _unary)
            )
            handler = getattr(implementation, _snake(method.name))
            methods[method.name] = make(
                wrap(guard, method, handler, ROLES[name]),
                request_deserializer=decoder(message_factory.GetMessageClass(method.input_type)),
                response_serializer=_serialise,
            )
        handlers.append(grpc.method_handlers_generic_handler(name, methods))
    return handlers
