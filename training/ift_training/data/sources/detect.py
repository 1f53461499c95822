"""What a file is, by its content; its name decides only between formats that look the same."""

from __future__ import annotations

import json
import re
import stat
import zipfile
from pathlib import Path
from typing import Literal

from ift_training.data.sources.base import SourceError

Format = Literal["json lines", "json array", "csv", "parquet", "gzip"]
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""Of files that a directory of records is searched for, each perhaps with .gz behind it."""
_READ = "give JSON Lines, a JSON list, CSV, Parquet, or gzip of these"
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89PNG", "a PNG picture", _READ),
    (b"\xff\xd8\xff", "a JPEG picture", _READ),
    (b"GIF8", "a GIF picture", _READ),
    (b"%PDF", "a PDF document", "extract its text first"),
    (b"GGUF", "a GGUF model", "name it as the base model's file, not as data"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", "save the sheet as CSV (UTF-8)"),
    (b"ARROW1", "an Arrow file", "write it as Parquet: Dataset.to_parquet or pyarrow.parquet.write_table"),
    (b"\xff\xff\xff\xff", "an Arrow stream", "write it as Parquet: Dataset.to_parquet or pyarrow.parquet.write_table"),
    (b"Obj\x01", "an Avro file", _READ),
    (b"ORC", "an ORC file", "write it as Parquet"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _READ),
    (b"\x93NUMPY", "a NumPy array", _READ),
    (b"SQLite format 3\0", "an SQLite database", "export the table as CSV"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "unpack it: zstd -d"),
    (b"BZh", "a bzip2 archive", "unpack it: bunzip2"),
    (b"\xfd7zXZ\0", "an xz archive", "unpack it: unxz"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"\x7fELF", "a program", _READ),
    (b"version https://git-lfs.github.com/spec", "a pointer of Git LFS, not the file itself", "run: git lfs pull"),
    (b"\xff\xfe\0\0", "text in UTF-32", "save it as UTF-8"),
    (b"\0\0\xfe\xff", "text in UTF-32", "save it as UTF-8"),
    (b"\xff\xfe", "text in UTF-16", "save it as UTF-8: iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "save it as UTF-8: iconv -f UTF-16 -t UTF-8"),
)
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
        raise SourceError(f"{name}: is {found[0]}; {found[1]}")
    return _text_format(head.removeprefix(b"\xef\xbb\xbf"), name)


def _foreign(path: Path, head: bytes) -> tuple[str, str] | None:
    """What a file is that holds no records, and what to do about it."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(path)
    for signature, what, advice in _SIGNATURES:
        if head.startswith(signature):
            return what, advice
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it"
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40 and b"\0" in head[:8]:
        return "a safetensors file, which holds weights", _READ
    if _PICKLE.match(head):
        return "a pickle, which can run any program when it is opened and is never read", _READ
    if b"\0" in head:
        if head[1::2].count(0) > len(head) // 3 or head[::2].count(0) > len(head) // 3:
            return "text in UTF-16", "save it as UTF-8: iconv -f UTF-16 -t UTF-8"
        return "a binary file", _READ
    if re.match(rb"\s*<(?:!doctype|html|\?xml|[a-z])", head, re.IGNORECASE):
        return "a web page or XML, perhaps in place of a download that failed", _READ
    return None


def _zip(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return "a damaged zip archive", "get it again, and unpack it"
    if any(name.startswith("xl/") for name in names):
        return "an Excel workbook", "save the sheet as CSV (UTF-8)"
    if any(name.startswith("word/") for name in names):
        return "a Word document", _READ
    if any(name.endswith("data.pkl") for name in names):
        return "a file of torch.save, which is a pickle and never read", _READ
    if any(name.endswith(".npy") for name in names):
        return "a file of NumPy arrays", _READ
    return "a zip archive", "unpack it, and name the file or the directory inside"


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
