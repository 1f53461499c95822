"""What Ray's ingress knows of the services: their methods, as bytes that replicas read."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from ift_serve.server.services import RPC_NAMES

HEALTH = "grpc.health.v1.Health"
FUNCTION = "ift_serve.deploy.ray.servicers.add_services"
"""Import path for Ray's ``grpc_servicer_functions``."""


def add_services(servicer: object, server: Any) -> None:
    """Register every method. Ray puts its own handlers in the place of these; the messages stay bytes on their way.

    A replica's method is called by the rpc's name alone, whatever the service: ``Check`` is the evaluation service's
    for bytes, and health's for its message.
    """
    methods: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for path, streams in RPC_NAMES.items():
        _, service, name = path.split("/")
        register = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        methods[service][name] = register(_never, None, None)
    check = grpc.unary_unary_rpc_method_handler(_never, health_pb2.HealthCheckRequest.FromString, None)
    methods[HEALTH]["Check"] = check
    for service, handlers in methods.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


def _never(*_: object) -> None:
    raise NotImplementedError("Ray calls replicas instead")
