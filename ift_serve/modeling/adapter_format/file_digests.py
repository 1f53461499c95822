"""Digests of an adapter's files as they are read: its version, and what its signature is checked by."""

from __future__ import annotations

import hashlib

from ift_serve.modeling.adapter_format.signing.signed_files import SignedFiles

_DIGITS = 16


class FileDigests:
    """One file after another: ``begin``, ``update`` with all its bytes, and ``end``, or the next ``begin``.

    ``signed``: what each file is held against once all of it has been read; None: nothing.
    """

    def __init__(self, signed: SignedFiles | None = None) -> None:
        self.signed = signed
        self._all = hashlib.sha256()
        self._name = ""
        self._file = hashlib.sha256()

    def begin(self, name: str, *, length: int | None = None) -> None:
        """A file's bytes follow. ``length``: where they do not tell it themselves. Raises AdapterError, see ``end``."""
        self.end()
        self._name, self._file = name, hashlib.sha256()
        self._all.update(f"\0{name}\0".encode() + (b"" if length is None else length.to_bytes(8, "little")))

    def update(self, content: bytes | bytearray) -> None:
        """Bytes of the file, in their order."""
        self._all.update(content)
        if self.signed is not None:
            self._file.update(content)

    def end(self) -> None:
        """Raise AdapterError if what was read is not what was signed."""
        if self._name and self.signed is not None:
            self.signed.check(self._name, self._file.hexdigest())
        self._name = ""

    @property
    def version(self) -> str:
        """Of the adapter: the first 16 hex digits of the SHA-256 of all files."""
        return self._all.hexdigest()[:_DIGITS]
