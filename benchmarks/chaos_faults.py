"""The faults of a chaos run, each with what it waits for before it counts as over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import psutil
from chaos_network import Network
from chaos_world import UNREAD, Fault, World
from resources import engine_of

from ift_serve.client import ServerError

_LOSS, _LOSS_SECONDS = 0.2, 5.0
_FULL_SECONDS = 3.0
_SLOW_READERS = 8
_PART = 1 << 16
_OF_THE_ENGINE = ("engine killed", "engine hung")

Act = Callable[[Fault], Awaitable[None]]


class Faults:
    """By name, in the order in which they take turns."""

    def __init__(self, world: World, network: Network) -> None:
        self._world, self._network = world, network
        self.acts: dict[str, Act] = {
            "engine killed": self._kill,
            "adapters replaced": self._replace,
            "disk full": self._fill,
            "slow readers": self._read_slowly,
            "packets lost": self._lose,
            "engine hung": self._stop,
        }
        self.skipped: dict[str, str] = {}
        if not network.lose(0.0):
            self.skipped["packets lost"] = network.kind
            del self.acts["packets lost"]

    async def strike(self, kind: str) -> None:
        """One fault, from its beginning until a call is answered right again; one of the engine lasts until then."""
        fault = Fault(kind, time.monotonic())
        self._world.faults.append(fault)
        await self.acts[kind](fault)
        over = time.monotonic()
        fault.end = None if kind in _OF_THE_ENGINE else over
        await self._recover(fault, over)
        fault.end = fault.end or time.monotonic()

    async def _recover(self, fault: Fault, over: float) -> None:
        """What a caller who keeps trying sees."""
        case, answer = self._world.known[0]
        while time.monotonic() - over < self._world.hang:
            with contextlib.suppress(ServerError):
                if await case.ask(self._world.client) != answer:
                    self._world.problems.append(f"wrong: the first answer after: {fault.kind}")
                fault.recovered = round(time.monotonic() - fault.begin, 2)
                return
            await asyncio.sleep(0.1)
        self._world.problems.append(f"hang: nothing was answered after: {fault.kind}")

    async def _engine(self) -> psutil.Process | None:
        for _ in range(300):
            if (found := await asyncio.to_thread(engine_of, self._world.front)) is not None:
                return found
            await asyncio.sleep(0.1)
        self._world.problems.append("hang: there was no engine for 30 s")
        return None

    async def _kill(self, fault: Fault) -> None:
        if (engine := await self._engine()) is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                engine.kill()

    async def _stop(self, fault: Fault) -> None:
        """The server must notice by itself, while calls wait, and replace it."""
        if (engine := await self._engine()) is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            engine.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        while time.monotonic() - begun < self._world.hang:
            if not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE:
                fault.told["noticed"] = round(time.monotonic() - begun, 2)
                return
            await asyncio.sleep(0.1)
        self._world.problems.append("hang: a stopped engine was not noticed")

    async def _replace(self, fault: Fault) -> None:
        """Every name gets its other version, twice; one that nobody uses comes and goes."""
        world = self._world
        for turn in range(2):
            for name, paths in world.versions.items():
                await self._administered(partial(world.admin.load_adapter, name, paths[turn]))
        path = next(iter(world.versions.values()))[0]
        if await self._administered(partial(world.admin.load_adapter, "idle", path)):
            await self._administered(partial(world.admin.unload_adapter, "idle", drain_seconds=10))

    async def _administered(self, call: Callable[[], Awaitable[object]]) -> bool:
        """Whether it was done; what was refused must have had a reason."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._world.hang):
                await self._world.administer(call())
        except ServerError as error:
            self._world.refused(error, begun, adapter=True)
        except TimeoutError:
            self._world.problems.append("hang: a call of the administrator had no outcome")
        else:
            self._world.outcomes["administered"] += 1
            return True
        return False

    async def _fill(self, fault: Fault) -> None:
        """No byte is left where adapters, their copies and the audit log are; calls and loads go on meanwhile."""
        ballast = self._world.disk / "ballast"
        await asyncio.to_thread(_fill, ballast)
        try:
            fault.told["free"] = os.statvfs(self._world.disk).f_bavail
            await self._replace(fault)
            for _ in range(5):
                await self._administered(self._world.admin.adapters)
            await asyncio.sleep(_FULL_SECONDS)
        finally:
            ballast.unlink()

    async def _read_slowly(self, fault: Fault) -> None:
        world = self._world
        await asyncio.gather(*(world.one(lambda: world.read_slowly(UNREAD + 2)) for _ in range(_SLOW_READERS)))

    async def _lose(self, fault: Fault) -> None:
        self._network.lose(_LOSS)
        try:
            await asyncio.sleep(_LOSS_SECONDS)
        finally:
            self._network.lose(0.0)


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as opened:
        for size in (_PART, 1):
            with contextlib.suppress(OSError):
                while True:
                    opened.write(bytes(size))
