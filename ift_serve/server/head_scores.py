"""What an adapter's adherence head says of a response."""

from __future__ import annotations

from ift_serve.engine.protocol.results import FailureKind
from ift_serve.frontend.engine_client import BaseEngineClient
from ift_serve.frontend.errors import EngineError
from ift_serve.server.adapter_service import check_reference
from ift_serve.server.call_guard import Call
from ift_serve.server.errors import invalid

COMPONENT = "adherence_head"


class HeadScorer:
    """Asks the engine, where the adapter has such a head."""

    def __init__(self, engine: BaseEngineClient) -> None:
        self._engine = engine

    async def score(self, prompt: str, response: str, adapter: str, call: Call) -> float | str:
        """A probability, or why there is none. Raises StatusError, EngineError."""
        check_reference(adapter, "adapter")
        if not prompt.strip():
            raise invalid("prompt", "is empty; the adherence head judges a response to a prompt")
        info = self._engine.adapters.find(adapter)
        if info is None:
            raise EngineError(FailureKind.NOT_FOUND, f"adapter: {adapter!r} is not loaded", "adapter")
        if COMPONENT not in info.components:
            return f"the adapter {info.name}@{info.version} has no adherence head"
        return "this server does not serve adherence heads"
