"""The server's certificate, read again when its files change: connections that stand keep the one they began with."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import grpc

_log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int], ...]


class Certificates:
    """Certificate chain and key in PEM files, and the authority that clients must have theirs from.

    Raises OSError or ValueError where the first ones cannot be used. Later ones that cannot be are logged, and the
    last good ones stay in use.
    """

    def __init__(self, certificate: Path, key: Path, client_authority: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_authority = client_authority
        self._stamp = self._look()
        self._first = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """For a port; gRPC asks ``_fetch`` at each handshake."""
        mutual = self._client_authority is not None
        # The stubs do not know that None says "nothing new".
        return grpc.dynamic_ssl_server_credentials(self._first, self._fetch, mutual)  # type: ignore[arg-type]

    def _files(self) -> list[Path]:
        return [self._certificate, self._key, *([self._client_authority] if self._client_authority else [])]

    def _look(self) -> Stamp:
        return tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in (path.stat() for path in self._files()))

    def _read(self) -> grpc.ServerCertificateConfiguration:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # A key that wants a password is an error here, not a question on the terminal.
            context.load_cert_chain(self._certificate, self._key, password=b"")
        except ssl.SSLError as error:
            said = f"not a certificate and its key in PEM, without a password: {error}"
            raise ValueError(f"tls_certificate, tls_key: {said}") from error
        if self._client_authority is not None:
            try:
                context.load_verify_locations(self._client_authority)
            except ssl.SSLError as error:
                raise ValueError(f"tls_client_authority: not certificates in PEM: {error}") from error
        return grpc.ssl_server_certificate_configuration(
            [(self._key.read_bytes(), self._certificate.read_bytes())],
            root_certificates=None if self._client_authority is None else self._client_authority.read_bytes(),
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration, or None while nothing has changed. Called in threads of gRPC."""
        try:
            stamp = self._look()
            if stamp == self._stamp:
                return None
            self._stamp = stamp
            found = self._read()
        except (OSError, ValueError) as error:
            _log.error("the new certificate is not used: %s", error)
            return None
        _log.info("certificate read again")
        return found
