"""The public keys whose adapters are loaded: a file of them, or a directory of such files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ift_serve.modeling.adapter_format.signing.errors import SigningError
from ift_serve.modeling.adapter_format.signing.keys import public_key

if TYPE_CHECKING:
    from minisign import PublicKey

_LARGEST = 1 << 20
_ENDING = ".pub"


def read_trusted_keys(place: Path) -> list[PublicKey]:
    """All keys of a file, or of the files of a directory whose names end in ``.pub``.

    A file is one of minisign's, or several of them one after another; lines that begin with ``#`` are comments. Raises
    SigningError where there is no key, or one is damaged: a key that is passed over would be missed only at a load.
    """
    try:
        is_folder = place.is_dir()
        files = sorted(place.glob(f"*{_ENDING}")) if is_folder else [place]
        keys = [key for file in files for key in _keys(file)]
    except (OSError, UnicodeDecodeError) as error:
        raise SigningError(f"{place}: cannot be read: {error}") from None
    if not keys:
        raise SigningError(f"{place}: holds no public key{f' in a file *{_ENDING}' if is_folder else ''}")
    return keys


def _keys(file: Path) -> list[PublicKey]:
    with file.open("rb") as opened:
        text = opened.read(_LARGEST).decode()
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith(("#", "untrusted comment:")):
            continue
        try:
            found.append(public_key(line))
        except SigningError as error:
            raise SigningError(f"{file}, line {number}: {error}") from None
    return found
