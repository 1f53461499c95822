"""Rank 0's side: starts the followers, tells them what to compute, and notices when one is gone."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable

import torch

from ift_serve.engine.config import EngineConfig
from ift_serve.engine.runner.parallel.channel import Channel, encode
from ift_serve.engine.runner.parallel.messages import (
    Begin,
    ClearSlot,
    Done,
    FactorParts,
    Join,
    OpenCache,
    PlaceAdapter,
    PlaceLinear,
    RankFailed,
    ShardSequence,
    Step,
    ToFollower,
    ToLeader,
)
from ift_serve.engine.runner.parallel.process_group import join_group, leave_group
from ift_serve.engine.sequences.step import ComputeLostError, StepBatch
from ift_serve.modeling.decoder.cache_scales import CacheScale
from ift_serve.modeling.multi_adapter.prepared import Factors
from ift_serve.system.machine import processors

_log = logging.getLogger(__name__)

_MODULE = "ift_serve.engine.runner.parallel.follower"
_ENDING_SECONDS = 5.0


def threads_of_a_rank(config: EngineConfig, device: str) -> int:
    """Compute threads of each rank: on the CPU they share the processors."""
    count = config.threads or min(torch.get_num_threads(), processors())
    return max(1, count // config.tensor_parallel) if device == "cpu" else count


def shard_step(batch: StepBatch, block_size: int, wanted: list[int] | None, chunk: int) -> Step:
    """What followers need of a batch to compute their parts of it."""
    sequences = []
    for own in batch.sequences:
        used = -(-(own.start + len(own.token_ids)) // block_size)
        sequences.append(ShardSequence(own.token_ids, own.start, own.block_table[:used], own.adapter))
    return Step(sequences, batch.block_copies, wanted, chunk)


def encoded_factors(factors: Factors) -> FactorParts:
    """Factors as a message holds them."""
    a, b = (own.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() for own in (factors.a, factors.b))
    return FactorParts(factors.rank, factors.scale, a, b)


def _encoded_or_none(factors: Factors | None) -> FactorParts | None:
    return None if factors is None else encoded_factors(factors)


def decoded_factors(parts: FactorParts, dtype: torch.dtype, device: str) -> Factors:
    """The factors of a message."""
    a, b = (torch.frombuffer(bytearray(own), dtype=dtype).view(parts.rank, -1).to(device) for own in (parts.a, parts.b))
    return Factors(a, b, parts.scale)


class Ranks:
    """The followers of one engine. They end with this process, however it ends."""

    def __init__(self, config: EngineConfig, device: str) -> None:
        """Start them; they import what they need beside what is done here. Raises ValueError where they cannot run."""
        self.size = config.tensor_parallel
        self._device = device
        if sys.platform != "linux":
            raise ValueError("tensor_parallel: needs Linux; serve in one process")
        if device == "cuda" and torch.cuda.device_count() < self.size:
            raise ValueError(
                f"tensor_parallel: {self.size} ranks need as many GPUs, and {torch.cuda.device_count()} are visible"
            )
        self._channels: list[Channel[ToLeader]] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ends = False
        self._last: list[Done] = []
        for rank in range(1, self.size):
            self._spawn(rank, config)

    def _spawn(self, rank: int, config: EngineConfig) -> None:
        own, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        self._processes.append(process)
        self._channels.append(Channel(own, ToLeader))
        self._channels[-1].send(encode(Begin(config.model_dump_json(), self._device, rank, self.size)))

    @property
    def pids(self) -> list[int]:
        """Process ids of the followers, in the order of their ranks."""
        return [process.pid for process in self._processes]

    def join(self) -> None:
        """Connect all ranks. Raises ValueError where one has ended."""
        self.hear()
        directory = tempfile.mkdtemp(prefix="ift-serve-ranks-")
        try:
            self.tell(Join(directory))
            join_group(directory, 0, self.size, self._device)
            self.hear()
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def free_memory(self, own: int) -> int:
        """Bytes that all ranks together may take; ``own``: what this process sees. GPUs get as much as the fullest."""
        if self._device == "cpu":
            return own
        return self.size * min(own, *(done.free for done in self._last))

    def open_cache(
        self, blocks: int, block_size: int, dtype: torch.dtype, backend: str, scales: list[CacheScale] | None
    ) -> None:
        """Have every follower take its memory of keys and values."""
        of_layers = None if scales is None else [(scale.key, scale.value) for scale in scales]
        self.tell(OpenCache(blocks, block_size, str(dtype).removeprefix("torch."), backend, of_layers))
        for rank, done in enumerate(self.hear(), 1):
            _log.info("rank is ready", extra={"rank": rank, "ranks": self.size, "resident_mib": done.resident >> 20})

    def place_adapter(self, slot: int, parts: list[list[list[Factors | None]]]) -> None:
        """Send each follower its part of an adapter, a linear layer at a time."""
        for rank, linears in enumerate(parts, 1):
            for index, factors in enumerate(linears):
                if any(own is not None for own in factors):
                    self._send(rank, encode(PlaceLinear(index, [_encoded_or_none(own) for own in factors])))
            self._send(rank, encode(PlaceAdapter(slot)))

    def clear_adapter(self, slot: int) -> None:
        """Have every follower free the adapter of a slot."""
        self.tell(ClearSlot(slot))

    def tell(self, message: ToFollower) -> None:
        """To all of them; they do it while this process goes on. Raises ComputeLostError where one is gone."""
        encoded = encode(message)
        for rank in range(1, self.size):
            self._send(rank, encoded)

    def hear(self) -> list[Done]:
        """Wait until all of them have done what they were told. Raises ValueError with what one could not."""
        self._last = [self._hear(rank) for rank in range(1, self.size)]
        return self._last

    def in_turn(self, message: ToFollower) -> list[Done]:
        """Have one after the other do it."""
        found = []
        for rank in range(1, self.size):
            self._send(rank, encode(message))
            found.append(self._hear(rank))
        return found

    def _send(self, rank: int, encoded: bytes) -> None:
        try:
            self._channels[rank - 1].send(encoded)
        except OSError as error:
            raise ComputeLostError(f"rank {rank} of {self.size} is gone: {error}") from error

    def _hear(self, rank: int) -> Done:
        try:
            said = self._channels[rank - 1].receive()
        except OSError:
            code = self._processes[rank - 1].wait(_ENDING_SECONDS)
            raise ValueError(
                f"tensor_parallel: rank {rank} of {self.size} ended (code {code}); its log says why"
            ) from None
        if isinstance(said, RankFailed):
            raise ValueError(f"tensor_parallel: rank {rank} of {self.size}: {said.message}")
        return said

    def watch(self, on_lost: Callable[[str], None]) -> None:
        """From now on ``on_lost`` is called, in a thread, once a follower ends."""
        for rank, process in enumerate(self._processes, 1):
            threading.Thread(target=self._wait, args=(rank, process, on_lost), name=f"rank {rank}", daemon=True).start()

    def _wait(self, rank: int, process: subprocess.Popen[bytes], on_lost: Callable[[str], None]) -> None:
        code = process.wait()
        if not self._ends:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            on_lost(f"rank {rank} of {self.size} ended ({how})")

    def close(self) -> None:
        """End the followers."""
        self._ends = True
        for channel in self._channels:
            channel.close()
        for process in self._processes:
            try:
                process.wait(_ENDING_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        leave_group()
