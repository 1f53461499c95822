"""Parts of one call, a few of them at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


async def side_by_side(
    parts: Iterable[_Part], work: Callable[[_Part], Awaitable[_Result]], at_once: int
) -> list[_Result]:
    """The results of all parts, in order.

    The first error ends all others and is raised as it is, with whatever it says to the caller. A caller that leaves
    ends those that are at work, and the rest never begin.
    """
    results: dict[int, _Result] = {}
    left = enumerate(parts)

    async def worker() -> None:
        for index, part in left:
            results[index] = await work(part)

    workers = [asyncio.create_task(worker()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[index] for index in range(len(results))]
