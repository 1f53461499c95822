"""Detects a file's format by its content; its name decides only between formats that look the same."""

from __future__ import annotations

import json
import re
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ift_training.data.sources.base import SourceError

Format = Literal["json lines", "json array", "csv", "parquet", "gzip"]
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""Of files that a directory of records is searched for, each perhaps with .gz behind it."""
_READ = "give JSON Lines, a JSON list, CSV, Parquet, or gzip of these"
_UTF16 = "text in UTF-16"
_SIGNATURES: dict[bytes, str] = {
    b"\x89PNG": "a PNG picture", b"\xff\xd8\xff": "a JPEG picture", b"GIF8": "a GIF picture", b"%PDF": "a PDF document",
    b"GGUF": "a GGUF model", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Office document",
    b"ARROW1": "an Arrow file", b"\xff\xff\xff\xff": "an Arrow stream", b"Obj\x01": "an Avro file",
    b"ORC": "an ORC file", b"\x89HDF\r\n\x1a\n": "an HDF5 file", b"\x93NUMPY": "a NumPy array",
    b"SQLite format 3\0": "an SQLite database", b"\x28\xb5\x2f\xfd": "a Zstandard archive", b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\0": "an xz archive", b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive", b"Rar!": "a RAR archive",
    b"\x7fELF": "a program",
    b"version https://git-lfs.github.com/spec": "a pointer of Git LFS, not the file itself",
    b"\xff\xfe\0\0": "text in UTF-32", b"\0\0\xfe\xff": "text in UTF-32", b"\xff\xfe": _UTF16, b"\xfe\xff": _UTF16,
}  # fmt: skip
"""What files that hold no records begin with; a longer beginning stands before one that it begins with."""
_ADVICE = {
    "a PDF document": "extract its text first",
    "a GGUF model": "name it as the base model's file, not as data",
    "an old Office document": "save the sheet as CSV (UTF-8)",
    "an Excel workbook": "save the sheet as CSV (UTF-8)",
    **dict.fromkeys(
        ("an Arrow file", "an Arrow stream"),
        "write it as Parquet: Dataset.to_parquet or pyarrow.parquet.write_table",
    ),
    "an ORC file": "write it as Parquet",
    "an SQLite database": "export the table as CSV",
    "a Zstandard archive": "unpack it: zstd -d",
    "a bzip2 archive": "unpack it: bunzip2",
    "an xz archive": "unpack it: unxz",
    **dict.fromkeys(("a 7-Zip archive", "a RAR archive", "a tar archive"), "unpack it"),
    "a zip archive": "unpack it, and name the file or the directory inside",
    "a damaged zip archive": "get it again, and unpack it",
    "a pointer of Git LFS, not the file itself": "run: git lfs pull",
    "text in UTF-32": "save it as UTF-8",
    _UTF16: "save it as UTF-8: iconv -f UTF-16 -t UTF-8",
}
"""What to do about them; about all others, :data:`_READ`."""
_ZIPPED: tuple[tuple[Callable[[str], bool], str], ...] = (
    (lambda name: name.startswith("xl/"), "an Excel workbook"),
    (lambda name: name.startswith("word/"), "a Word document"),
    (lambda name: name.endswith("data.pkl"), "a file of torch.save, which is a pickle and never read"),
    (lambda name: name.endswith(".npy"), "a file of NumPy arrays"),
)
"""What a zip archive is, by the name of a file in it."""
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\(dp|\(lp|ccopy_reg")
_HEAD = 1 << 16


def check_regular(path: Path, name: str) -> None:
    """Raise SourceError for what cannot be read at any place: a missing file, a pipe, a device."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SourceError(f"{name}: cannot be read: {error.strerror or error}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise SourceError(f"{name}: is a pipe or a device; write its content to a file first")


def detect(path: Path, name: str) -> Format:
    """The format of a file. Raises SourceError that names what it is instead, and what to do.

    ``name``: what to call it, with the suffix that is looked at.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise SourceError(f"{name}: cannot be read: {error.strerror or error}") from error
    if not head:
        raise SourceError(f"{name}: is empty, so it holds no records; write one JSON object a line")
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"PAR1"):
        return "parquet"
    if found := _foreign(path, head):
        raise SourceError(f"{name}: is {found}; {_ADVICE.get(found, _READ)}")
    return _text_format(head.removeprefix(b"\xef\xbb\xbf"), name)


def _foreign(path: Path, head: bytes) -> str | None:
    """What a file is that holds no records."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(path)
    if (found := next((what for begin, what in _SIGNATURES.items() if head.startswith(begin)), None)) is not None:
        return found
    if head[257:262] == b"ustar":
        return "a tar archive"
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40 and b"\0" in head[:8]:
        return "a safetensors file, which holds weights"
    if _PICKLE.match(head):
        return "a pickle, which can run any program when it is opened and is never read"
    if b"\0" in head:
        half = max(head[1::2].count(0), head[::2].count(0))
        return _UTF16 if half > len(head) // 3 else "a binary file"
    if re.match(rb"\s*<(?:!doctype|html|\?xml|[a-z])", head, re.IGNORECASE):
        return "a web page or XML, perhaps in place of a download that failed"
    return None


def _zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return "a damaged zip archive"
    return next((what for holds, what in _ZIPPED if any(map(holds, names))), "a zip archive")


def _text_format(head: bytes, name: str) -> Format:
    text = head.lstrip()
    if not text:
        raise SourceError(f"{name}: holds blank lines only, so no records; write one JSON object a line")
    suffix = Path(name.removesuffix(".gz")).suffix.lower()
    if text.startswith(b"[") and not _is_line_of_list(text):
        return "json array"
    if text.startswith((b"{", b"[")):
        _check_one_line(text, name)
        return "json lines"
    if suffix in (".jsonl", ".ndjson", ".json"):
        return "json lines"
    if suffix in (".csv", ".tsv") or _looks_like_table(text):
        return "csv"
    raise SourceError(f"{name}: is plain text, and not records with fields; {_READ}")


def _is_line_of_list(text: bytes) -> bool:
    """Whether the first line is a list by itself and more lines follow: a list a line, not one list."""
    line, _, rest = text.partition(b"\n")
    if not rest.strip():
        return False
    try:
        return isinstance(json.loads(line), list)
    except (ValueError, RecursionError):
        return False


def _check_one_line(text: bytes, name: str) -> None:
    line, newline, _ = text.partition(b"\n")
    try:
        json.JSONDecoder().raw_decode(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        whole = False
    else:
        whole = True
    if newline and not whole and line.rstrip().endswith((b"{", b"[", b",", b":")):
        raise SourceError(
            f"{name}: holds JSON objects that go over several lines; write each on a line of its own: "
            f"jq -c . {name} > records.jsonl, or put them in a list"
        )


def _looks_like_table(text: bytes) -> bool:
    """Whether the first line has several cells, as many as the next one that is not blank."""
    lines = [line for line in text.splitlines()[:20] if line.strip()]
    return len(lines) > 1 and any(lines[0].count(d) and lines[1].count(d) for d in (b",", b"\t", b";", b"|"))
