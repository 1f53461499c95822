"""What tests of replicas on a Ray cluster share: the application as it is deployed, and callers who keep asking."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ift_serve.client import AsyncClient, ServerError
from tests.support.ray_nodes import RayNodes

PROMPTS = [f"the fox and the dog number {number} ran to the river" for number in range(12)]
SAMPLING: dict[str, Any] = {"temperature": 1.0, "seed": 7, "max_new_tokens": 48, "ignore_eos": True}
ADAPTERS = ("one", "two", "three", "four")
QUICK = {
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "500ms",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_health_check_failure_threshold": "2",
    "RAY_health_check_period_ms": "1000",
}


class Deployed:
    """The application, as `ift-serve deploy ray` puts it on the nodes."""

    def __init__(self, nodes: RayNodes, model: Path, root: Path, ingress: int = 1) -> None:
        self.nodes, self._model, self.root = nodes, model, root
        self.ingress = f"{nodes.addresses[ingress]}:9000"

    def deploy(self, **settings: Any) -> dict[str, Any]:
        """Put it there, or update it; what the command says."""
        engine = {"model": str(self._model), "dtype": "float32", "total_blocks": 2048, "max_sequences": 8, "threads": 1}
        server = {"engine": engine | settings.pop("engine", {}), "adapter_roots": [str(self.root)]}
        server |= settings.pop("server", {})
        chosen = {"drain_timeout": 60, "health_interval": 1, "ingress": "haproxy", "server": server, **settings}
        path = self.nodes.folder / "deploy.yaml"
        path.write_text(yaml.safe_dump(chosen))
        command = Path(sys.executable).parent / "ift-serve"
        done = self.nodes.run(str(command), "deploy", "ray", str(path), "--json")
        assert done.returncode == 0, done.stderr[-4000:]
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def counts(self) -> list[dict[str, float]]:
        """What each replica has counted."""
        program = (
            "import json, ray; from ray import serve; ray.init(address='auto', log_to_driver=False); "
            "print(json.dumps(serve.get_deployment_handle('engine', 'ift-serve').broadcast('counts').results()))"
        )
        done = self.nodes.run(sys.executable, "-c", program)
        assert done.returncode == 0, done.stderr[-4000:]
        found: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
        return found


@dataclass
class Load:
    """Callers who ask until they are told to stop; answers are held against solo runs.

    ``streamed``: half of them ask for streams.
    """

    client: AsyncClient
    solo: list[str]
    streamed: bool = True
    answers: int = 0
    wrong: list[tuple[int, str]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    _stop: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, callers: int) -> None:
        self._tasks = [asyncio.create_task(self._call(number)) for number in range(callers)]

    async def more(self, answers: int, seconds: float = 120) -> None:
        """Until so many more answers have come."""
        wanted = self.answers + answers
        async with asyncio.timeout(seconds):
            while self.answers < wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _call(self, number: int) -> None:
        while not self._stop:
            index = number % len(PROMPTS)
            number += 1
            try:
                text = await self._ask(index, streamed=self.streamed and number % 2 == 0)
            except ServerError as error:
                self.errors[f"{error.code}: {error.message[:120]}"] += 1
                continue
            self.answers += 1
            if text != self.solo[index]:
                self.wrong.append((index, text))

    async def _ask(self, index: int, *, streamed: bool) -> str:
        if not streamed:
            return (await self.client.generate(PROMPTS[index], **SAMPLING)).text
        return (await self.client.stream(PROMPTS[index], **SAMPLING).result()).text


async def cancel_calls(client: AsyncClient, prompts: Sequence[str], sampling: dict[str, Any]) -> None:
    """A stream and a whole answer of each prompt are begun, and cancelled by their caller."""
    streams = [client.stream(prompt, **sampling) for prompt in prompts]
    for stream in streams:
        await anext(stream)
    unary = [asyncio.create_task(client.generate(prompt, **sampling)) for prompt in prompts]
    await asyncio.sleep(0)
    for stream in streams:
        stream.cancel()
    for task in unary:
        task.cancel()
    await asyncio.gather(*unary, return_exceptions=True)


async def nothing_runs(deployed: Deployed) -> None:
    """Until no engine has a request: each of those asked for here would take longer than that."""
    async with asyncio.timeout(120):
        while any(count["ift_requests"] for count in await asyncio.to_thread(deployed.counts)):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
