"""The review page and its few calls over HTTP, for this machine alone."""

from __future__ import annotations

import hmac
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ift_serve.checks.errors import MissingExtraError
from ift_serve.checks.verdict import Span
from ift_training.data.quality.errors import QualityError
from ift_training.data.quality.findings import FindingStore
from ift_training.data.quality.review.page import PAGE
from ift_training.data.quality.review.queue import CHOICES, Assignment, NotYoursError, ReviewQueue, plain

HOST = "127.0.0.1"
_LONGEST_BODY = 2_000_000
"""Bytes of a call; an edited record is far smaller."""
_LONGEST_NAME = 200
"""Characters of the name of a record or a reason."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": PAGE.policy,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

__all__ = ["HOST", "application", "bound_socket", "serve", "tokens_of"]


def tokens_of(reviewers: Sequence[str]) -> dict[str, str]:
    """A secret for each reviewer: who has it is that reviewer."""
    return {secrets.token_urlsafe(24): name for name in reviewers}


def bound_socket(port: int) -> socket.socket:
    """A socket of this machine's own network; port 0 takes any that is free. Raises QualityError."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
        # Whoever opens the link before the server runs waits for it, and is not refused.
        found.listen()
    except OSError as error:
        found.close()
        raise QualityError(f"--port {port}: {error.strerror}") from None
    return found


def serve(queue: ReviewQueue, tokens: Mapping[str, str], findings: FindingStore, listening: socket.socket) -> None:
    """Answer until the process is told to end. Raises MissingExtraError without the package uvicorn."""
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtraError("the review page", "uvicorn", "data") from error
    made = application(queue, tokens, findings)
    config = uvicorn.Config(
        made, log_level="warning", access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=2
    )
    uvicorn.Server(config).run(sockets=[listening])


def application(queue: ReviewQueue, tokens: Mapping[str, str], findings: FindingStore) -> Any:
    """The ASGI application. Its page holds no record: every call that does needs a reviewer's token.

    Names of hosts that are not this machine's are refused, so that no other site's name can lead a browser here.
    Raises MissingExtraError without the package starlette.
    """
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.requests import Request
        from starlette.responses import HTMLResponse, Response
        from starlette.routing import Route
    except ImportError as error:
        raise MissingExtraError("the review page", "starlette", "data") from error
    calls = _Calls(queue, findings)

    def told(values: Mapping[str, Any], status: int) -> Response:
        # Escaped, so that half a character, which is no text of UTF-8, can be told too.
        return Response(json.dumps(values), status, _HEADERS, "application/json")

    async def show(request: Request) -> Response:
        return HTMLResponse(PAGE.text, headers=_HEADERS)

    def call(act: Callable[[str, Mapping[str, Any]], dict[str, Any]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            reviewer = _reviewer(request.headers.get("authorization", ""), tokens)
            if reviewer is None:
                return told({"error": "the link has no valid token"}, 401)
            try:
                values = await _body(request.stream(), request.headers.get("content-type", ""))
                found = await run_in_threadpool(act, reviewer, values)
            except NotYoursError as error:
                return told({"error": str(error)}, 409)
            except QualityError as error:
                return told({"error": str(error)}, 400)
            return told(found, 200)

        return answer

    routes = [Route("/", show, methods=["GET"])]
    for name, act in (
        ("current", calls.current),
        ("decide", calls.decide),
        ("undo", calls.undo),
        ("draft", calls.draft),
    ):
        routes.append(Route(f"/api/{name}", call(act), methods=["POST"]))
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
    return Starlette(routes=routes, middleware=[hosts])


class _Calls:
    """What the page can ask for, as plain values."""

    def __init__(self, queue: ReviewQueue, findings: FindingStore) -> None:
        self._queue, self._findings = queue, findings

    def current(self, reviewer: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """The record that the reviewer has now, and all that is shown around it."""
        found = self._queue.current(reviewer, _text(values, "reason"))
        return {
            "reviewer": reviewer,
            "assignment": None if found is None else _shown(found, self._findings.spans(found.record.id)),
            "progress": self._queue.progress(reviewer),
            "reasons": self._queue.reasons(),
            "agreement": [plain(one) for one in self._queue.agreement()],
        }

    def decide(self, reviewer: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Decide about a record, then the next."""
        choice = values.get("choice")
        if choice not in CHOICES:
            raise QualityError(f"choice: give one of {', '.join(CHOICES)}")
        self._queue.decide(reviewer, _text(values, "record"), choice, _edited(values))
        return self.current(reviewer, values)

    def undo(self, reviewer: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Take the last decision back; its record is shown again."""
        undone = self._queue.undo(reviewer)
        return self.current(reviewer, {} if undone else values) | {"undone": undone}

    def draft(self, reviewer: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Keep what is being edited."""
        self._queue.save_draft(reviewer, _text(values, "record"), _edited(values))
        return {}


def _shown(found: Assignment, spans: Mapping[str, Span]) -> dict[str, Any]:
    record = found.record
    return {
        "spans": [spans[reason.name] for reason in record.reasons if reason.name in spans],
        "id": record.id,
        "round": found.round,
        "step": record.lineage.step,
        "history": [asdict(turn) for turn in record.history],
        "instruction": record.instruction,
        "context": record.context,
        "response": record.response,
        "reasons": [asdict(reason) for reason in record.reasons],
        "draft": found.draft,
        "earlier": list(found.earlier),
    }


def _reviewer(header: str, tokens: Mapping[str, str]) -> str | None:
    """Whose token a call bears. Compared in constant time."""
    given = header.removeprefix("Bearer ").encode()
    found = None
    for token, name in tokens.items():
        if hmac.compare_digest(given, token.encode()):
            found = name
    return found


async def _body(stream: Any, kind: str) -> Mapping[str, Any]:
    """The JSON object of a call. Raises QualityError."""
    if kind.partition(";")[0].strip() != "application/json":
        raise QualityError("send application/json")
    parts, size = [], 0
    async for part in stream:
        size += len(part)
        if size > _LONGEST_BODY:
            raise QualityError(f"more than {_LONGEST_BODY:,} bytes")
        parts.append(part)
    try:
        found = json.loads(b"".join(parts))
    except (ValueError, RecursionError):
        raise QualityError("the call is no JSON") from None
    if not isinstance(found, dict):
        raise QualityError("the call is no JSON object")
    return found


def _text(values: Mapping[str, Any], name: str) -> str:
    found = values.get(name, "")
    if not isinstance(found, str) or not found.isprintable() or len(found) > _LONGEST_NAME:
        raise QualityError(f"{name}: give a name")
    return found


def _edited(values: Mapping[str, Any]) -> Mapping[str, str] | None:
    found = values.get("edited")
    if found is not None and not isinstance(found, dict):
        raise QualityError("edited: give an object")
    return found
