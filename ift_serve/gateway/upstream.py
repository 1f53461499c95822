"""The server behind the gateway: one connection for all callers, each in its own name."""

from __future__ import annotations

import time

from ift_serve.client import AsyncClient, InvalidRequestError, ModelInfo, ServerError
from ift_serve.gateway.config import GatewayConfig
from ift_serve.gateway.errors import ApiError

_KNOWN_SECONDS = 5.0
"""How long the model's description is believed: a restarted server may serve another."""


class Upstream:
    """Opens no connection before the first call. Use it from one event loop."""

    def __init__(self, config: GatewayConfig) -> None:
        self._client = AsyncClient(
            config.server,
            authority=config.authority,
            certificate=config.certificate,
            key=config.key,
            timeout=config.timeout,
            retries=0,
        )
        self._model: ModelInfo | None = None
        self._until = 0.0

    def caller(self, token: str | None, metadata: list[tuple[str, str]]) -> AsyncClient:
        """A client in a caller's name. Its refusals are the caller's, who may try again. Raises ApiError."""
        try:
            return self._client.for_caller(token, metadata)
        except InvalidRequestError as error:
            raise ApiError(401, f"authorization: {error.violations[0].message}", None, "invalid_api_key") from None

    async def model(self, client: AsyncClient, *, fresh: bool = False) -> ModelInfo:
        """The served model, as it was within the last seconds, or as the server says now. Raises ServerError."""
        if self._model is None or fresh or time.monotonic() > self._until:
            self._model = await client.model(timeout=30)
            self._until = time.monotonic() + _KNOWN_SECONDS
        return self._model

    async def is_ready(self) -> bool:
        """Whether the server takes calls."""
        try:
            return await self._client.health(timeout=3) == "SERVING"
        except ServerError:
            return False

    async def close(self) -> None:
        """Cancel what is in flight."""
        await self._client.close()
