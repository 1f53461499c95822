"""Authentication and roles of callers."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import grpc

from ift_serve.server.errors import StatusError

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
"""Time between looks at the file."""

Role = Literal["generate", "admin"]
_ROLES: tuple[Role, ...] = ("generate", "admin")


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller: its name, for logs and fair share, and its role. An admin may do everything."""

    name: str
    role: Role
    proof: bytes = field(default=b"", repr=False, compare=False)
    """A digest of the token that it came with."""

    def may(self, needed: Role) -> bool:
        """Whether the role suffices."""
        return self.role in (needed, "admin")


@dataclass(frozen=True, slots=True, repr=False)
class _Token:
    identity: Identity
    secret: bytes


class Authenticator:
    """Bearer tokens from a file; without one, everybody who can connect is an admin.

    The file is read again when it has changed. One that cannot be used is logged, and the last good tokens stay valid.
    ``on_change`` is told how many there are now.
    """

    def __init__(self, path: Path | None, on_change: Callable[[int], object] = lambda count: None) -> None:
        self._path = path
        self._on_change = on_change
        self._lock = threading.Lock()
        self._stamp: object = None
        self._looked = time.monotonic()
        self._tokens = None if path is None else self._first(path)

    def _first(self, path: Path) -> list[_Token]:
        self._stamp = _stamp(path)
        return _read(path)

    def reload(self, *, force: bool = True) -> None:
        """Read the file again where it has changed, or in any case. Safe from any thread."""
        if self._path is None:
            return
        with self._lock:
            self._looked = time.monotonic()
            try:
                stamp = _stamp(self._path)
                if stamp == self._stamp and not force:
                    return
                self._stamp = stamp
                self._tokens = _read(self._path)
            except (OSError, ValueError) as error:
                _log.error("the new tokens are not used: %s", error)
                return
            count = len(self._tokens)
        _log.info("tokens read again", extra={"callers": count})
        self._on_change(count)

    def _look(self) -> None:
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self.reload(force=False)

    def is_current(self, identity: Identity) -> bool:
        """Whether the token that a caller came with, perhaps long ago, would still do."""
        self._look()
        tokens = self._tokens
        return tokens is None or any(
            token.identity == identity and token.identity.proof == identity.proof for token in tokens
        )

    def identify(self, metadata: Sequence[tuple[str, str | bytes]], peer: str) -> Identity:
        """The caller behind a call. Raises StatusError UNAUTHENTICATED."""
        if self._tokens is None:
            return Identity(peer, "admin")
        self._look()
        value = next((str(v) for k, v in metadata if k == "authorization"), "")
        scheme, _, given = value.partition(" ")
        found: Identity | None = None
        for token in self._tokens:
            # Every token is compared, so that the time tells nothing.
            if hmac.compare_digest(token.secret, given.strip().encode()) and scheme.lower() == "bearer":
                found = token.identity
        if found is None:
            raise StatusError(
                grpc.StatusCode.UNAUTHENTICATED, "no valid token; send metadata `authorization: Bearer <token>`"
            )
        return found


def require(identity: Identity, role: Role) -> None:
    """Raise StatusError PERMISSION_DENIED unless the caller has the role."""
    if not identity.may(role):
        raise StatusError(grpc.StatusCode.PERMISSION_DENIED, f"this call needs the role {role}")


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _warn_if_open(path: Path) -> None:
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        _log.warning("tokens_file: %s can be read or written by other users of this machine; chmod 600 it", path)


def _read(path: Path) -> list[_Token]:
    _warn_if_open(path)
    tokens = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        fields = text.split()
        if len(fields) != 3 or fields[0] not in _ROLES:
            raise ValueError(f"{path}, line {number}: expected `role name token` with role generate or admin")
        role: Role = "admin" if fields[0] == "admin" else "generate"
        if len(fields[2]) < 16:
            raise ValueError(f"{path}, line {number}: the token of {fields[1]} is shorter than 16 characters")
        secret = fields[2].encode()
        tokens.append(_Token(Identity(fields[1], role, hashlib.sha256(secret).digest()), secret))
    if not tokens:
        raise ValueError(f"{path}: holds no tokens; write lines of `role name token`")
    return tokens
