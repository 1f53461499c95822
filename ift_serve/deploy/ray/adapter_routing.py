"""Sends calls to the replica whose memory holds their adapter, by Ray's multiplexing."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any

import grpc
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.metrics import Counter

from ift_serve.deploy.ray.call_context import CallContext
from ift_serve.deploy.ray.call_end import CallEnd
from ift_serve.deploy.ray.replica_adapters import ReplicaAdapters
from ift_serve.server.errors import StatusError
from ift_serve.server.services import Rpc

_log = logging.getLogger(__name__)
_TRIES = 3


class AdapterRouting:
    """See :class:`ift_serve.deploy.ray.calls.Routing`. Made in a replica, which ``handle`` calls the deployment of.

    ``affinity``: whether calls leave a replica that would have to read their adapter first. ``most``: adapters of
    which Ray knows that this replica holds them, the latest used.
    """

    def __init__(self, adapters: ReplicaAdapters, handle: Any, *, affinity: bool, most: int) -> None:
        self._adapters = adapters
        self._handle = handle
        self._affinity = affinity

        async def held_adapter(model_id: str) -> str:
            return model_id

        self._note_held = serve.multiplexed(held_adapter, max_num_models_per_replica=most)
        self._requests = Counter(
            "ift_adapter_requests", "Requests that name an adapter, by whether it was in memory", tag_keys=("where",)
        )
        self.counts = {"memory": 0, "read": 0, "forwarded": 0}

    async def stays(self, adapter: str) -> bool:
        """Whether this replica answers a call from a caller."""
        known = self._adapters.is_recorded(adapter)
        if not known or self._adapters.is_resident(adapter):
            await self.taken(adapter)
            return True
        if not self._affinity and self._adapters.find(adapter) is not None:
            await self.taken(adapter)
            return True
        self._count("forwarded")
        return False

    async def taken(self, adapter: str) -> None:
        """This replica answers a call: it holds the adapter from now on, if it can."""
        if self._adapters.find(adapter) is None:
            return
        self._count("memory" if self._adapters.is_resident(adapter) else "read")
        await self._note_held(adapter.partition("@")[0])

    def _count(self, where: str) -> None:
        self.counts[where] += 1
        self._requests.inc(tags={"where": where})

    async def forwarded(
        self, rpc: Rpc, body: bytes, context: CallContext, adapter: str, seconds: float | None
    ) -> AsyncGenerator[bytes, None]:
        """The answers of the replica that Ray chooses. Another is asked only while nothing has been answered."""
        metadata = context.for_another(seconds)
        for tries_left in reversed(range(_TRIES)):
            answered = False
            try:
                async with contextlib.aclosing(self._ask(rpc, body, metadata, context.peer(), adapter)) as answers:
                    async for answer in answers:
                        answered = True
                        yield answer
                return
            except (RayError, RayServeException) as error:
                _log.warning("the replica that held %s is gone: %s", adapter, type(error).__name__)
                if answered or not tries_left:
                    text = "the replica that answered is gone"
                    raise StatusError(grpc.StatusCode.UNAVAILABLE, text, retry_after=1.0) from None

    async def _ask(self, rpc: Rpc, body: bytes, metadata: Any, peer: str, adapter: str) -> AsyncGenerator[bytes, None]:
        chosen = self._handle.options(
            method_name="answer_forwarded", stream=True, multiplexed_model_id=adapter.partition("@")[0]
        )
        answers = chosen.remote(rpc.path, body, metadata, peer)
        try:
            async for answer in answers:
                if isinstance(answer, CallEnd):
                    answer.raise_unless_ok()
                    return
                yield answer
        finally:
            answers.cancel()  # does nothing once it is over
