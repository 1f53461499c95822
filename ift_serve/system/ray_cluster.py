"""The Ray cluster that this process joins, or why it cannot."""

from __future__ import annotations

import os
import socket
from typing import Any
from urllib.parse import urlsplit

_SECONDS_TO_REACH = 10.0


class NoClusterError(Exception):
    """There is no cluster at the address; the message names it and what to do."""


def join(address: str, **options: Any) -> None:
    """Connect this process to a cluster, unless it is connected already.

    ``address``: ``auto`` (what RAY_ADDRESS names, else this node's cluster), ``HOST:PORT``, ``ray://HOST:PORT`` of
    Ray's client, or ``local`` (a new cluster of this machine). ``options``: of ``ray.init``. Raises NoClusterError,
    and ImportError without Ray.
    """
    import ray

    if ray.is_initialized():
        return
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    where = address
    try:
        where = _found(address)
        _reach(where)
        ray.init(address=address, **options)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: another version of Ray or Python
        advice = "`ray start --head` starts one on this machine, `ray stop` forgets one that has ended"
        named = address if where == address else f"{address} ({where})"
        raise NoClusterError(f"no Ray cluster at {named}: {error}; {advice}") from error


def _found(address: str) -> str:
    """What ``auto`` comes to: it may be a cluster that has ended, whose address Ray has kept."""
    if address != "auto":
        return address
    try:
        from ray._private.services import canonicalize_bootstrap_address
    except ImportError:  # a later Ray may have it elsewhere: then it looks by itself, for as long as it likes
        return address
    return canonicalize_bootstrap_address(address) or address


def _reach(address: str) -> None:
    """Raises OSError where nobody listens at ``HOST:PORT``, for which Ray itself would wait more than five minutes;
    ValueError where the port is no number."""
    where = urlsplit(address if "://" in address else f"ray://{address}")
    if where.hostname is not None and where.port is not None:  # `auto` and `local` have no port
        socket.create_connection((where.hostname, where.port), _SECONDS_TO_REACH).close()
