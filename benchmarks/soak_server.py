"""The server of a soak: as ``ift-serve serve``, but both its processes write down their memory. Its argument is JSON.

The server process's lines go into the file ``IFT_SOAK_FRONT``, one every ``IFT_SOAK_SECONDS``; see ``memory.snapshot``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from memory import record

from ift_serve.engine.config import EngineConfig
from ift_serve.frontend.engine_client import EngineClient
from ift_serve.server.app import Server
from ift_serve.server.config import ServerConfig
from ift_serve.server.run import announce
from ift_serve.system.logs import configure_logs


async def serve(fields: dict[str, Any]) -> None:
    """Until SIGTERM."""
    engine = EngineConfig(**fields.pop("engine"))
    config = ServerConfig(engine=engine, port=0, metrics_port=None, log_level="warning", **fields)
    configure_logs(config.log_level)
    server = Server(config, EngineClient(config.engine, worker_module="soak_worker"))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await server.start()
    place, seconds = Path(os.environ["IFT_SOAK_FRONT"]), float(os.environ["IFT_SOAK_SECONDS"])
    threading.Thread(target=record, args=(place, seconds, dict), name="memory", daemon=True).start()
    announce(server)
    await ended.wait()
    await server.stop()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
