"""The page's path, beside the gateway's own."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from ift_serve.gateway.config import GatewayConfig
from ift_serve.gateway.exchange import SAFE_HEADERS
from ift_serve.playground.page import POLICY, page


def playground(config: GatewayConfig) -> list[BaseRoute]:
    """The page at ``/``. It holds nothing of any caller: what it shows comes by the calls that it makes."""
    is_encrypted = config.authority is not None or config.certificate is not None
    headers = {
        **SAFE_HEADERS,
        "content-security-policy": POLICY,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "permissions-policy": "camera=(), microphone=(), geolocation=()",
    }

    text = page(config.server, is_encrypted=is_encrypted)

    async def show(request: Request) -> Response:
        return HTMLResponse(text, headers=headers)

    return [Route("/", show, methods=["GET"])]
