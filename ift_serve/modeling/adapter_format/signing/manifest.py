"""The manifest of an adapter directory: the SHA-256 of every file in it, as ``sha256sum`` writes and checks them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ift_serve.modeling.adapter_format.errors import quoted
from ift_serve.modeling.adapter_format.signing.errors import SigningError

MANIFEST, SIGNATURE = "adapter.manifest", "adapter.manifest.minisig"
LARGEST = 1 << 22
"""Bytes of a manifest."""
_FIRST = "# ift-serve adapter manifest 1"
"""Nothing else that a key may have signed begins with it."""
_NAME = re.compile(r"# name: ([A-Za-z0-9][A-Za-z0-9._-]{0,63})")
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


@dataclass(frozen=True, slots=True)
class Manifest:
    """``digests``: SHA-256 in hex by path below the directory, but of the manifest and its signature.

    ``adapter``: the only name that the adapter may be loaded as; empty: any.
    """

    digests: dict[str, str]
    adapter: str = ""

    @classmethod
    def parse(cls, content: bytes) -> Manifest:
        """Raises SigningError for whatever is not of the form."""
        try:
            lines = content.decode().split("\n")
        except UnicodeDecodeError:
            raise SigningError("not UTF-8") from None
        if lines[0] != _FIRST:
            raise SigningError(f"does not begin with the line `{_FIRST}`")
        named = _NAME.fullmatch(lines[1]) if len(lines) > 1 else None
        digests: dict[str, str] = {}
        for number, line in enumerate(lines[1 if named is None else 2 :], 2 if named is None else 3):
            if number == len(lines) and not line:
                continue  # what follows the last line's end
            found = _LINE.fullmatch(line)
            name = _checked_path(found[2]) if found else ""
            if found is None or not name or name in digests:
                raise SigningError(f"line {number}: not `SHA-256  path`, or a path that comes twice: {quoted(line)}")
            digests[name] = found[1]
        return cls(digests, named[1] if named else "")

    def content(self) -> bytes:
        """The file."""
        return "".join(f"{line}\n" for line in self._lines()).encode()

    def _lines(self) -> Iterator[str]:
        yield _FIRST
        if self.adapter:
            line = f"# name: {self.adapter}"
            if not _NAME.fullmatch(line):
                raise SigningError(f"name: {quoted(self.adapter)} is not one that adapters are loaded as")
            yield line
        for name, digest in sorted(self.digests.items()):
            if not _checked_path(name):
                raise SigningError(f"{quoted(name)}: rename it: paths of signed files are printable, without backslash")
            yield f"{digest}  {name}"


def _checked_path(name: str) -> str:
    """The path, or nothing if it cannot be one of a file below the directory."""
    name = name.removeprefix("./")
    parts = name.split("/")
    plain = name.isprintable() and "\\" not in name and name not in (MANIFEST, SIGNATURE)
    return name if plain and all(part not in ("", ".", "..") for part in parts) else ""
