"""Engine stats: a snapshot that goes with every step's outputs."""

from __future__ import annotations

import msgspec


class EngineStats(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A snapshot of the engine after a step; counters grow from the start of the process.

    ``waiting``: requests; ``running``: sequences, of ``running_requests``. ``adapter_bytes``: of adapters in host
    memory; ``adapter_users``: requests in flight by ``name@version``; ``resident_adapters``: versions with a slot;
    ``adapter_evictions``, ``adapter_returns``: adapters that left the memory for others, and were read again.
    ``strategy_seconds``: spent in strategies' callbacks, of which ``slow_callbacks`` took over 50 ms.
    ``drafted_tokens`` and ``accepted_tokens`` as in ``RequestUsage``.
    """

    waiting: int = 0
    running: int = 0
    running_requests: int = 0
    free_blocks: int = 0
    total_blocks: int = 0
    cached_blocks: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    batch_tokens: int = 0
    adapter_bytes: int = 0
    adapter_users: dict[str, int] = {}
    resident_adapters: list[str] = []
    adapter_evictions: int = 0
    adapter_returns: int = 0
    strategy_seconds: float = 0.0
    slow_callbacks: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
