"""Keys and signatures in minisign's files: Ed25519 over the BLAKE2b of a message, and over that with a comment.

The package minisign (py-minisign) reads, makes and checks them; imported only where something is signed or checked.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from ift_serve.modeling.adapter_format.signing.errors import SigningError

if TYPE_CHECKING:
    from minisign import PublicKey, SecretKey, Signature

_NUMBER = slice(2, 10)
"""Of a key: 8 bytes behind the name of the algorithm."""


def public_key(line: str) -> PublicKey:
    """From the line of base64 in a key file. Raises SigningError."""
    from minisign import Error, PublicKey

    try:
        return PublicKey.from_base64(line.strip())
    except (Error, ValueError) as error:
        raise SigningError(f"not a public key of minisign's: {error}") from None


def new_key(password: str) -> tuple[bytes, bytes, str]:
    """The files of a new secret key, encrypted where there is a password, and of its public key; and its number."""
    from minisign import KeyPair

    pair = KeyPair.generate()
    number = number_of(pair.public_key)
    pair.public_key.untrusted_comment = f"minisign public key {number}"
    if password:
        pair.secret_key.encrypt(password)
    return bytes(pair.secret_key) + b"\n", bytes(pair.public_key) + b"\n", number


def secret_key(content: bytes) -> SecretKey:
    """From a key file; it may be encrypted still. Raises SigningError, which tells nothing of the key."""
    from minisign import Error, SecretKey

    try:
        return SecretKey.from_bytes(content)
    except (Error, ValueError) as error:
        raise SigningError(f"not a secret key of minisign's: {error}") from None


def decrypt(key: SecretKey, password: str) -> None:
    """Have a key usable. Raises SigningError for a wrong password, and for what this machine cannot work out."""
    from minisign import Error

    try:
        key.decrypt(password)
    except (Error, ValueError, MemoryError) as error:
        raise SigningError(f"the secret key stays closed: {error}") from None


def sign(key: SecretKey, message: bytes, comment: str) -> bytes:
    """A signature file. ``comment``: one line of ASCII, which is signed too. Raises SigningError."""
    from minisign import Error

    try:
        return bytes(key.sign(message, trusted_comment=comment)) + b"\n"
    except (Error, ValueError) as error:
        raise SigningError(str(error)) from None


def signature(content: bytes) -> Signature:
    """From a signature file. Raises SigningError."""
    from minisign import Error, Signature

    try:
        found = Signature.from_bytes(content)
    except (Error, ValueError) as error:
        raise SigningError(f"not a signature of minisign's: {error}") from None
    if not found.is_prehashed():
        raise SigningError("of minisign's old kind, over the file itself; sign again without its option -l")
    return found


def is_signed(key: PublicKey, message: bytes, by: Signature) -> bool:
    """Whether the key has signed the message, and the signature's comment with it."""
    from minisign import Error

    try:
        key.verify(message, by)
    except (Error, ValueError):  # ValueError: 32 bytes that are no point of the curve
        return False
    return True


def number_of(key: PublicKey | Signature) -> str:
    """What tells keys apart, as minisign shows it; of a signature: of the key that it claims to be of."""
    lines = bytes(key).splitlines()
    return f"{int.from_bytes(base64.b64decode(lines[1])[_NUMBER], 'little'):016X}"
