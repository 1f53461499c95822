"""What each path does: parse, bound, ask, answer."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ift_serve.client import AsyncClient, ModelInfo, ServerError
from ift_serve.gateway.answer_memory import AnswerMemory
from ift_serve.gateway.chat_request import ChatRequest, chat_question
from ift_serve.gateway.choices import ChatChoice, TextChoice
from ift_serve.gateway.completion_request import CompletionRequest, completion_questions
from ift_serve.gateway.config import GatewayConfig
from ift_serve.gateway.errors import ApiError, invalid, of_server
from ift_serve.gateway.exchange import ClientGone, Exchange, Receive, Scope, Send
from ift_serve.gateway.fields import RequestT, SharedFields, parse
from ift_serve.gateway.generating import Generating, Kind
from ift_serve.gateway.model_list import model_list, one_model
from ift_serve.gateway.turns import Turns
from ift_serve.gateway.upstream import Upstream
from ift_serve.sharing.loop_shares import LoopShare, LoopShares
from ift_serve.sharing.peers import Peers, named, parse_address
from ift_serve.sharing.places import Places

_log = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_CHAT = Kind("chatcmpl", "chat.completion", "chat.completion.chunk", ChatChoice)
_TEXT = Kind("cmpl", "text_completion", "text_completion", TextChoice)

Handler = Callable[["Gateway", Exchange], Awaitable[None]]


class Gateway:
    """What the requests of one process share."""

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        self.upstream = Upstream(config)
        self.is_draining = False
        self._places = Places(config.max_calls)
        self._memory = AnswerMemory(config.answer_memory)
        self._peers = Peers(config.trusted_proxies)
        self._turns = Turns()
        self._loop_shares = LoopShares()

    async def close(self) -> None:
        """Cancel what is in flight."""
        await self.upstream.close()

    async def read(self, exchange: Exchange, kind: type[RequestT]) -> RequestT:
        """The fields of a request's body. Raises ApiError."""
        if exchange.header("content-type").partition(";")[0].strip().lower() != "application/json":
            # Nothing else, so that a page of another site cannot send it without being asked (CORS).
            raise ApiError(415, "content-type: must be application/json", None, "unsupported_media_type")
        body = await exchange.body(self.config.body_bytes, self.config.read_timeout)
        return await self._turns.run(len(body), lambda: parse(kind, body))

    def caller(self, exchange: Exchange) -> tuple[AsyncClient, str]:
        """A client in the caller's name, and what the caller is counted as. Raises ApiError."""
        token = _bearer(exchange.header("authorization"))
        metadata = [("x-request-id", exchange.request_id)]
        counted = "local"
        client = exchange.scope.get("client")
        address = parse_address(str(client[0])) if client else None
        if address is not None:
            address = self._peers.behind(address, exchange.headers("x-forwarded-for"))
            metadata.append(("x-forwarded-for", str(address)))
            counted = named(address)
        return self.upstream.caller(token, metadata), counted

    async def generate(self, exchange: Exchange, request: SharedFields) -> None:
        """Answer a request for text. Raises ApiError."""
        client, counted = self.caller(exchange)
        with self._place(counted):
            model = await self.model(client)
            if isinstance(request, ChatRequest):
                kind, questions = _CHAT, [chat_question(request, model.context_length, model.chat_template)]
            else:
                assert isinstance(request, CompletionRequest)
                kind, limit = _TEXT, self.config.prompts
                questions = completion_questions(request, model.context_length, limit)
            generating = Generating(
                kind,
                client,
                model,
                _adapter(request, model),
                questions,
                min(request.timeout or self.config.timeout, self.config.timeout),
                self.config.answer_entries,
                LoopShare(self._loop_shares),
                exchange.request_id,
            )
            if request.stream:
                usage = request.stream_options is not None and bool(request.stream_options.include_usage)
                await generating.answer_stream(exchange, include_usage=usage)
            else:
                with self._memory.share(counted) as memory:
                    await generating.answer_whole(exchange, memory)

    async def model(self, client: AsyncClient, *, fresh: bool = False) -> ModelInfo:
        """The served model. Raises ApiError."""
        try:
            return await self.upstream.model(client, fresh=fresh)
        except ServerError as error:
            raise of_server(error, {}) from None

    def _place(self, counted: str) -> Any:
        if self.is_draining:
            raise ApiError(503, "the gateway is shutting down", None, "unavailable", 1.0)
        if not self._places.has_room(counted):
            message = f"{self._places.held(counted)} requests of this caller are in flight already"
            raise ApiError(429, message, None, "rate_limit_exceeded", 1.0)
        return _Place(self._places, counted)


class _Place:
    """A place while it is held."""

    def __init__(self, places: Places, counted: str) -> None:
        self._places, self._counted = places, counted

    def __enter__(self) -> None:
        self._places.take(self._counted)

    def __exit__(self, *_: object) -> None:
        self._places.leave(self._counted)


async def chat_completions(gateway: Gateway, exchange: Exchange) -> None:
    """POST /v1/chat/completions."""
    await gateway.generate(exchange, await gateway.read(exchange, ChatRequest))


async def completions(gateway: Gateway, exchange: Exchange) -> None:
    """POST /v1/completions."""
    await gateway.generate(exchange, await gateway.read(exchange, CompletionRequest))


async def models(gateway: Gateway, exchange: Exchange) -> None:
    """GET /v1/models."""
    client, _ = gateway.caller(exchange)
    model = await gateway.model(client, fresh=True)
    await exchange.answer(msgspec.json.encode(await model_list(client, model)))


async def model(gateway: Gateway, exchange: Exchange) -> None:
    """GET /v1/models/{model}."""
    client, _ = gateway.caller(exchange)
    served = await gateway.model(client, fresh=True)
    found = await one_model(client, served, exchange.scope["path_params"]["model"])
    await exchange.answer(msgspec.json.encode(found))


async def health(gateway: Gateway, exchange: Exchange) -> None:
    """GET /health: 200 while requests are taken and the server answers."""
    ready = not gateway.is_draining and await gateway.upstream.is_ready()
    state = "ok" if ready else "draining" if gateway.is_draining else "the server does not answer"
    await exchange.answer(msgspec.json.encode({"status": state}), status=200 if ready else 503)


async def alive(gateway: Gateway, exchange: Exchange) -> None:
    """GET /live: 200 while this process runs."""
    await exchange.answer(b'{"status":"ok"}')


class Endpoint:
    """An ASGI application of one path: errors become answers, and there is a line in the log."""

    def __init__(self, gateway: Gateway, handler: Handler) -> None:
        self._gateway, self._handler = gateway, handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        exchange = Exchange(scope, receive, send, self._gateway.config.write_timeout)
        given = exchange.header("x-request-id")
        exchange.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        error = ""
        try:
            error = await self._run(exchange)
        except ClientGone:
            error = "the caller has gone"
            scope["state"]["abort"]()  # what is not sent is not waited for
        finally:
            seconds = round(time.monotonic() - exchange.begun, 6)
            told = {"path": scope["path"], "status": exchange.status, "seconds": seconds}
            told |= {"request_id": exchange.request_id, **({"error": error} if error else {})}
            _log.info("request", extra=told)

    async def _run(self, exchange: Exchange) -> str:
        """What was wrong; empty: nothing."""
        try:
            await self._handler(self._gateway, exchange)
            return ""
        except ClientGone:
            raise
        except ApiError as error:
            told = error
        except Exception:
            _log.exception("a request failed", extra={"request_id": exchange.request_id})
            told = ApiError(500, "the gateway failed; its log has the details under this request id", None, "internal")
        if exchange.status is None:
            await exchange.refuse(told)
        return told.message


def _bearer(header: str) -> str | None:
    scheme, _, token = header.partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _adapter(request: SharedFields, model: ModelInfo) -> str:
    """The adapter that answers; empty: none. Raises ApiError."""
    named_model = "" if request.model == model.name else request.model
    if request.adapter is None:
        return named_model
    if named_model and named_model != request.adapter:
        raise invalid("adapter", f"is not what model says, which is {request.model!r}; give one of them")
    return request.adapter
