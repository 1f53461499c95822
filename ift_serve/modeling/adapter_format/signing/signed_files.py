"""Signed adapter directories: made, and checked on the bytes that are loaded."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ift_serve.modeling.adapter_format.errors import AdapterError, quoted
from ift_serve.modeling.adapter_format.safe_file import SafeDirectory
from ift_serve.modeling.adapter_format.signing.errors import SigningError
from ift_serve.modeling.adapter_format.signing.keys import is_signed, number_of, sign
from ift_serve.modeling.adapter_format.signing.keys import signature as parse_signature
from ift_serve.modeling.adapter_format.signing.manifest import LARGEST, MANIFEST, SIGNATURE, Manifest

if TYPE_CHECKING:
    from minisign import PublicKey, SecretKey

_LARGEST_SIGNATURE = 1 << 14
_PART = 1 << 20


class SignedFiles:
    """The files of a directory that one of the trusted keys has signed: exactly those, each as it was signed.

    Made before anything else of the directory is parsed, it reads all of them. What a load then reads again is only
    believed once :meth:`check` has seen the digest of the very bytes that were used: a file that changes in between
    is refused. Raises AdapterError, naming the file.
    """

    def __init__(self, files: SafeDirectory, trusted: Sequence[PublicKey]) -> None:
        content = files.read(MANIFEST, LARGEST)
        signature = files.read(SIGNATURE, _LARGEST_SIGNATURE)
        if content is None or signature is None:
            absent = MANIFEST if content is None else SIGNATURE
            raise AdapterError(
                f"{absent}: missing: only signed adapters are loaded here; sign it with `ift-serve adapters sign`"
            )
        self.key = _signer(content, signature, trusted)
        """Number of the key that has signed."""
        try:
            self.manifest = Manifest.parse(content)
        except SigningError as error:
            raise AdapterError(f"{MANIFEST}: {error}") from None
        self.names = (MANIFEST, SIGNATURE, *sorted(self.manifest.digests))
        """All files, by their paths below the directory."""
        self._check_names(files)
        for name in self.manifest.digests:
            self.check(name, _digest(files, name))

    def _check_names(self, files: SafeDirectory) -> None:
        present = set(files.names())
        for name in sorted(present - set(self.names)):
            raise AdapterError(f"{quoted(name)}: is not in the signed manifest; remove it, or sign the directory again")
        for name in sorted(set(self.names) - present):
            raise AdapterError(f"{quoted(name)}: is in the signed manifest and missing here")

    def check(self, name: str, digest: str) -> None:
        """Raise AdapterError unless that is the SHA-256 in hex of the file that was signed."""
        if self.manifest.digests.get(name) != digest:
            raise AdapterError(f"{quoted(name)}: is not the file that was signed; it has changed since")


def _signer(content: bytes, signature: bytes, trusted: Sequence[PublicKey]) -> str:
    """The number of the trusted key that has signed the content."""
    try:
        parsed = parse_signature(signature)
    except SigningError as error:
        raise AdapterError(f"{SIGNATURE}: {error}") from None
    number = number_of(parsed)
    named = [key for key in trusted if number_of(key) == number]
    if not named:
        raise AdapterError(f"{SIGNATURE}: of key {number}, which is not trusted here")
    if not any(is_signed(key, content, parsed) for key in named):
        raise AdapterError(f"{SIGNATURE}: not of this {MANIFEST}, or not by the key {number} that it names")
    return number


def _digest(files: SafeDirectory, name: str) -> str:
    file = files.open(name)
    if file is None:
        raise AdapterError(f"{quoted(name)}: went away while it was being read")
    digest = hashlib.sha256()
    with file:
        while part := file.read(_PART):
            digest.update(part)
    return digest.hexdigest()


def sign_directory(directory: Path, key: SecretKey, *, adapter: str = "", comment: str = "") -> Manifest:
    """Write manifest and signature of a directory, in place of those that it has.

    adapter: the only name that the adapter may then be loaded as; empty: any. comment: is signed too. Raises
    AdapterError and SigningError for what cannot be signed, and OSError.
    """
    with SafeDirectory(directory) as files:
        names = [name for name in files.names() if name not in (MANIFEST, SIGNATURE)]
        manifest = Manifest({name: _digest(files, name) for name in names}, adapter)
        files.check_unchanged()
    content = manifest.content()
    if len(content) > LARGEST or not manifest.digests:
        raise SigningError(f"{quoted(directory.name)}: holds no files, or too many of them")
    signature = sign(key, content, comment or f"ift-serve adapter, {len(manifest.digests)} files")
    # The signature of the old manifest goes first: at no moment does a signature stand beside another's manifest.
    (directory / SIGNATURE).unlink(missing_ok=True)
    _replace(directory / MANIFEST, content)
    _replace(directory / SIGNATURE, signature)
    return manifest


def verify_directory(directory: Path, trusted: Sequence[PublicKey]) -> SignedFiles:
    """What a server with these keys would say of the directory's signature. Raises AdapterError."""
    with SafeDirectory(directory) as files:
        found = SignedFiles(files, trusted)
        files.check_unchanged()
    return found


def _replace(path: Path, content: bytes) -> None:
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
