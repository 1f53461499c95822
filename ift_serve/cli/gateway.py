"""`ift-serve gateway`: OpenAI-compatible HTTP in front of a server; `ift-serve playground`: with a page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ift_serve.cli.connect import connected, fail


def _file(text: str) -> Any:
    return typer.Option(help=text, exists=True, dir_okay=False)


@dataclass(frozen=True)
class GatewayOptions:
    """Fields of :class:`ift_serve.gateway.config.GatewayConfig`; None: its default."""

    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1"
    port: Annotated[int, typer.Option(help="0: a free one", min=0, max=65535)] = 8000
    server: Annotated[str, typer.Option(help="host:port of the server", envvar="IFT_SERVE_SERVER")] = "127.0.0.1:50051"
    authority: Annotated[Path | None, _file("certificate authority of the server, for TLS to it")] = None
    certificate: Annotated[Path | None, _file("own certificate, for mutual TLS to the server")] = None
    key: Annotated[Path | None, _file("key of the own certificate")] = None
    tls_certificate: Annotated[Path | None, _file("certificate that HTTP callers see")] = None
    tls_key: Annotated[Path | None, _file("its key")] = None
    allow_insecure: Annotated[bool, typer.Option(help="listen beyond this machine without TLS")] = False
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="name by which it is reached; may be given several times")
    ] = None
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="origin of web pages that may call; none: no page of another origin")
    ] = None
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(help="address or network of a proxy whose x-forwarded-for is believed")
    ] = None
    body_bytes: Annotated[int | None, typer.Option(help="bytes of a request's body", min=1024)] = None
    answer_entries: Annotated[
        int | None, typer.Option(help="tokens and alternatives of an answer in one piece", min=1024)
    ] = None
    answer_memory: Annotated[
        int | None, typer.Option(help="bytes of answers in one piece while they are made", min=2**20)
    ] = None
    prompts: Annotated[int | None, typer.Option(help="prompts of one completions request", min=1)] = None
    max_calls: Annotated[int | None, typer.Option(help="requests in flight, half of them one caller's", min=1)] = None
    max_connections: Annotated[int | None, typer.Option(help="open connections, half of one address", min=2)] = None
    timeout: Annotated[float | None, typer.Option(help="seconds for a request at most", min=0.1)] = None
    read_timeout: Annotated[float | None, typer.Option(help="seconds for a request to arrive", min=0.1)] = None
    write_timeout: Annotated[float | None, typer.Option(help="seconds an answer may be left unread", min=0.1)] = None
    drain_timeout: Annotated[float, typer.Option(help="seconds for requests in flight on SIGTERM", min=0)] = 30.0
    drain_notice: Annotated[
        float, typer.Option(help="seconds between being unhealthy and listening no more", min=0)
    ] = 0.0
    log_level: Annotated[str, typer.Option(help="debug, info, warning, error")] = "info"

    def fields(self) -> dict[str, Any]:
        """What is given."""
        renamed = {
            "allowed_host": "allowed_hosts",
            "cors_origin": "cors_origins",
            "trusted_proxy": "trusted_proxies",
        }
        return {renamed.get(name, name): value for name, value in asdict(self).items() if value is not None}


@connected
def gateway(options: GatewayOptions) -> None:
    """Answer OpenAI's HTTP API (/v1/chat/completions, /v1/completions, /v1/models) by asking a server."""
    _run(options, with_page=False)


@connected
def playground(options: GatewayOptions) -> None:
    """Serve a page to try the server's models on, and the API that it calls (as `ift-serve gateway` does)."""
    _run(options, with_page=True)


def _run(options: GatewayOptions, *, with_page: bool) -> None:
    from pydantic import ValidationError

    from ift_serve.gateway.config import GatewayConfig

    try:
        from ift_serve.gateway.run import ListenError, run_gateway
        from ift_serve.playground.routes import playground as playground_routes
    except ImportError as error:
        raise fail(f"the package {error.name} is missing: pip install 'ift-serve[gateway]'") from None
    try:
        config = GatewayConfig.model_validate({**options.fields(), "playground": with_page})
        run_gateway(config, playground_routes(config) if with_page else ())
    except ValidationError as error:
        told = [(".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in error.errors()]
        raise fail("; ".join(f"{where}: {message}".lstrip(": ") for where, message in told)) from None
    except (ListenError, OSError, ValueError) as error:
        raise fail(str(error)) from None
