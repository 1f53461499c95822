"""Statuses of errors that come in groups."""

from __future__ import annotations

import asyncio

import grpc

from ift_serve.engine.protocol.results import FailureKind
from ift_serve.frontend.errors import EngineError
from ift_serve.server.errors import as_status, invalid


async def test_what_tasks_raise_keeps_its_status_and_delay() -> None:
    async def fail() -> None:
        raise EngineError(FailureKind.OVERLOADED, "full", "text", retry_after=2.5)

    async def go_on() -> None:
        await asyncio.Event().wait()

    try:
        async with asyncio.TaskGroup() as outer:
            outer.create_task(go_on())
            async with asyncio.TaskGroup() as inner:
                inner.create_task(fail())
    except ExceptionGroup as group:
        status = as_status(group)
    assert status.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (status.message, status.violations, status.retry_after) == ("full", [("text", "full")], 2.5)


def test_of_several_errors_the_one_that_says_what_to_do_is_told() -> None:
    gone = EngineError(FailureKind.CANCELLED, "gone")
    group = ExceptionGroup("all", [gone, ValueError("a fault"), ExceptionGroup("some", [invalid("text", "is empty")])])
    assert as_status(group).violations == [("text", "is empty")]
