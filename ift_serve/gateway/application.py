"""The ASGI application: paths, names of hosts, and who may call from web pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ift_serve.gateway import handlers
from ift_serve.gateway.errors import ApiError
from ift_serve.gateway.exchange import SAFE_HEADERS
from ift_serve.gateway.handlers import Endpoint, Gateway

_PATHS: tuple[tuple[str, str, handlers.Handler], ...] = (
    ("POST", "/v1/chat/completions", handlers.chat_completions),
    ("POST", "/v1/completions", handlers.completions),
    ("GET", "/v1/models", handlers.models),
    ("GET", "/v1/models/{model:path}", handlers.model),
    ("GET", "/health", handlers.health),
    ("GET", "/live", handlers.alive),
)


def application(gateway: Gateway, pages: Sequence[BaseRoute] = ()) -> Starlette:
    """``pages``: routes beside the API's."""
    routes = [Route(path, Endpoint(gateway, handler), methods=[method]) for method, path, handler in _PATHS]
    middleware = []
    if gateway.config.hosts:
        middleware.append(
            Middleware(TrustedHostMiddleware, allowed_hosts=list(gateway.config.hosts), www_redirect=False)
        )
    if gateway.config.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(gateway.config.cors_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["authorization", "content-type", "x-request-id"],
                expose_headers=["x-request-id", "retry-after"],
            )
        )
    handled: Any = {HTTPException: _refused}
    return Starlette(routes=[*routes, *pages], middleware=middleware, exception_handlers=handled)


async def _refused(request: Request, error: Exception) -> Response:
    """What no path takes, in the same shape as every error."""
    assert isinstance(error, HTTPException)
    known = "; ".join(f"{method} {path}" for method, path, _ in _PATHS)
    message = f"{request.method} {request.url.path[:200]} is not served; there are {known}"
    told = ApiError(error.status_code, message, None, "not_found")
    return Response(told.body(), error.status_code, {**SAFE_HEADERS, **told.headers()}, "application/json")
