"""`ift-serve health`: ask the standard gRPC health service; exit code 0 only if it serves."""

from __future__ import annotations

from typing import Annotated

import typer

from ift_serve.cli.connect import DEFAULT_SERVER, Authority, Certificate, ClientOptions, Key, Server, fail


def health(
    timeout: Annotated[float, typer.Option(help="seconds", min=0.1)] = 5.0,
    server: Server = DEFAULT_SERVER,
    authority: Authority = None,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Check whether a server serves (grpc.health.v1)."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from ift_serve.client.connection import Connection

    options = ClientOptions(server, None, authority, certificate, key)
    connection = Connection(server, None, options.authority, options.certificate, options.key)
    credentials = connection.credentials()
    channel = grpc.insecure_channel(server) if credentials is None else grpc.secure_channel(server, credentials)
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
    except grpc.RpcError as error:
        raise fail(f"{error.code().name}: {error.details()}") from None
    finally:
        channel.close()
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    print(status)
    if status != "SERVING":
        raise typer.Exit(1)
