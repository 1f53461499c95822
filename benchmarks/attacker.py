"""Who attacks: a caller and an administrator of the server, and what attacks are made of."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc


@dataclass(frozen=True, slots=True)
class Attacker:
    """Where the server is and the tokens that the attacker has: of a caller, and of an administrator."""

    target: str
    metrics_port: int
    token: str
    admin_token: str

    def channel(self) -> grpc.aio.Channel:
        """A connection of its own."""
        return grpc.aio.insecure_channel(self.target, options=[("grpc.use_local_subchannel_pool", 1)])

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What the caller proves itself with."""
        return (("authorization", f"Bearer {self.token}"),)

    @property
    def admin(self) -> tuple[tuple[str, str], ...]:
        """What the administrator proves itself with."""
        return (("authorization", f"Bearer {self.admin_token}"),)


Attack = Callable[[Attacker], Awaitable[None]]


told: Counter[str] = Counter()
"""What the attack's calls ended with, by status; whoever runs it clears it."""


async def all_of(calls: Iterable[Any]) -> None:
    """Whatever comes of them, which is counted."""
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        told[outcome.code().name if isinstance(outcome, grpc.aio.AioRpcError) else type(outcome).__name__] += 1
