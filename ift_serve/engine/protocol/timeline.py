"""What a traced request tells of its way through the engine. Times are seconds since its arrival."""

from __future__ import annotations

import msgspec

from ift_serve.engine.protocol.results import FinishReason

NO_PARENT = -1


class SequenceTimes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sequence of a request. ``ordinal`` counts them; ``parent``: the one that it was forked from, or -1.

    ``candidate``: which answer it became; -1: none, it stayed hidden. ``is_probe``: tokens of it were scored, it drew
    none. ``tokens``: generated, those it was forked with included. ``ended`` and ``reason`` are unset where the request
    ended before it.
    """

    ordinal: int
    began: float
    parent: int = NO_PARENT
    candidate: int = -1
    is_probe: bool = False
    tokens: int = 0
    ended: float | None = None
    reason: FinishReason | None = None


class Timeline(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``sequences``: the first of them; ``left_out``: how many there were beside these.

    ``adapter_returned``: when its adapter was in host memory again, where it had left that; ``form_read``: when the
    form of its answer had been read, where it has one.
    """

    sequences: list[SequenceTimes] = []
    left_out: int = 0
    adapter_returned: float | None = None
    form_read: float | None = None
