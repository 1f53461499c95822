"""Messages about adapters: load, unload, and the state of each version."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class LoadAdapter(msgspec.Struct, frozen=True, kw_only=True, tag="load_adapter"):
    """Read the directory ``path`` as a new version of ``name``. ``shown_path`` is what clients know it as.

    The directory, with links followed, must lie in ``root``, and so must what the links in it lead to; an empty
    ``root`` stands for the directory itself. With a ``version`` only that one will do. What was read is copied to a
    directory of that name in ``keep_in``, as long as that holds at most ``keep_bytes``.
    """

    request_id: str
    name: str
    path: str
    shown_path: str
    root: str = ""
    version: str = ""
    keep_in: str = ""
    keep_bytes: int = 0


class UnloadAdapter(msgspec.Struct, frozen=True, kw_only=True, tag="unload_adapter"):
    """Free ``name`` or ``name@version`` once its requests are done, or ``drain_seconds`` have passed."""

    request_id: str
    reference: str
    drain_seconds: float


class AdapterState(StrEnum):
    """What an adapter version is doing."""

    LOADING = "loading"
    READY = "ready"
    EVICTED = "evicted"
    RETURNING = "returning"
    DRAINING = "draining"
    UNLOADED = "unloaded"
    FAILED = "failed"


SERVED = frozenset({AdapterState.READY, AdapterState.EVICTED, AdapterState.RETURNING})
"""States in which new requests may name a version."""


class AdapterInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of an adapter. ``bytes``: host memory that it takes while it is in it; ``in_flight``: requests;
    ``message``: why it failed.

    ``trained_on``: names of families and checks, as its directory gives them.
    """

    name: str
    version: str
    state: AdapterState
    path: str = ""
    components: list[str] = []
    rank: int = 0
    bytes: int = 0
    in_flight: int = 0
    message: str = ""
    trained_on: list[str] = []


class AdapterReply(msgspec.Struct, frozen=True, kw_only=True, tag="adapters"):
    """The answer to a load or an unload: the versions it was about."""

    request_id: str
    adapters: list[AdapterInfo]
