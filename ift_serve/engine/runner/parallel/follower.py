"""``python -m ift_serve.engine.runner.parallel.follower SOCKET PARENT``: a rank other than 0."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.runner.parallel.channel import Channel, encode
from ift_serve.engine.runner.parallel.messages import (
    Begin,
    ClearSlot,
    Compare,
    Done,
    Join,
    LoadShard,
    OpenCache,
    Pack,
    PlaceAdapter,
    PlaceLinear,
    RankFailed,
    Step,
    ToFollower,
)
from ift_serve.modeling.lean_imports import import_lean_numba, import_lean_transformers
from ift_serve.system.logs import configure_logs
from ift_serve.system.parent import die_with_parent
from ift_serve.system.process_usage import resident_bytes

if TYPE_CHECKING:
    from ift_serve.engine.runner.parallel.shard_runner import ShardRunner

_log = logging.getLogger(__name__)


def _follow(channel: Channel[ToFollower]) -> None:
    begin = channel.receive()
    assert isinstance(begin, Begin)
    import_lean_transformers()
    import_lean_numba()
    from ift_serve.engine.runner.parallel.shard_runner import ShardRunner

    runner = ShardRunner(EngineConfig.model_validate_json(begin.config), begin.device, begin.rank, begin.size)
    channel.send(encode(Done()))
    while True:
        try:
            message = channel.receive()
        except OSError:  # rank 0 has ended, and says why
            return
        if _handle(runner, message):
            channel.send(encode(Done(resident_bytes(os.getpid()) or 0, runner.free_memory())))


def _handle(runner: ShardRunner, message: ToFollower) -> bool:
    """Do what a message asks; whether rank 0 waits for an answer."""
    match message:
        case Step():
            runner.step(message)
            return False
        case PlaceLinear() | PlaceAdapter() | ClearSlot():
            runner.adapt(message)
            return False
        case Join(directory=directory):
            runner.join(directory)
        case LoadShard(windows=windows):
            runner.load(windows)
        case Pack(backend=backend, fuses=fuses):
            runner.pack(backend, fuses=fuses)
        case Compare(backend=backend, block_size=block_size):
            runner.compare(backend, block_size)
        case OpenCache():
            runner.open_cache(message)
        case _:
            raise TypeError(f"{type(message).__name__} comes first, and once")
    return True


def main(arguments: list[str]) -> int:
    """Do as rank 0 says until it ends. Returns the exit code."""
    handle, parent = map(int, arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # both may be sent to all processes of a group
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(parent)
    channel: Channel[ToFollower] = Channel(socket.socket(fileno=handle), ToFollower)
    try:
        _follow(channel)
    except Exception as error:
        _log.exception("this rank cannot go on")
        channel.send(encode(RankFailed(str(error) if isinstance(error, ValueError) else repr(error))))
        return 1
    return 0


if __name__ == "__main__":
    configure_logs("info")
    code = main(sys.argv[1:])
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)  # as the engine's process does
