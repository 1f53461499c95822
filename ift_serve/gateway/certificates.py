"""The gateway's certificate, read again when its files change: connections that stand keep the one they began with."""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0

Stamp = tuple[tuple[int, int, int], ...]


class ChangingCertificate:
    """Certificate chain and key in PEM files. New ones that cannot be used are logged; the last good ones stay."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._stamp = self._look()
        self._looked = time.monotonic()

    def follow(self, context: ssl.SSLContext) -> None:
        """Have ``context`` use what the files hold now, where a second has passed and they have changed."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            # Tried elsewhere first: a pair that does not fit would leave the context with half of it.
            for into in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):
                into.load_cert_chain(*self._files, password=b"")  # a password is an error, not a question
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            _log.error("the new certificate is not used: %s", error)
            return
        _log.info("certificate read again")

    def _look(self) -> Stamp:
        return tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in (path.stat() for path in self._files))
