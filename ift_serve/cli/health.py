"""`ift-serve health`: ask the standard gRPC health service; exit code 0 only if it serves."""

from __future__ import annotations

from typing import Annotated

import typer

from ift_serve.cli.connect import ClientOptions, connected, fail, readable_errors


@connected
def health(
    options: ClientOptions,
    timeout: Annotated[float, typer.Option(help="seconds", min=0.1)] = 5.0,
    service: Annotated[
        str, typer.Option(help="name of a service; none: the whole server; liveness: the process alone")
    ] = "",
) -> None:
    """Check whether a server serves (grpc.health.v1)."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from ift_serve.client.connection import Connection

    with readable_errors():
        connection = Connection(options.server, **options.arguments())
        credentials = connection.credentials()
    channel = (
        grpc.insecure_channel(options.server)
        if credentials is None
        else grpc.secure_channel(options.server, credentials)
    )
    try:
        request = health_pb2.HealthCheckRequest(service=service)
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)
    except grpc.RpcError as error:
        raise fail(f"{error.code().name}: {error.details()}") from None
    finally:
        channel.close()
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    print(status)
    if status != "SERVING":
        raise typer.Exit(1)
