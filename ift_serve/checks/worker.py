"""A process that judges texts for a server: ``python -m ift_serve.checks.worker`` over standard input and output.

It can be ended at any time, which a thread cannot, and holds nobody's interpreter lock. A message is its length in four
bytes, big-endian, and JSON: ``{"constraints", "response", "prompt"}``, answered by ``{"verdicts"}``, ``{"invalid"}`` or
``{"missing"}``. The first message out is ``{}``: ready.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from typing import Any, BinaryIO

from ift_serve.checks.errors import MissingExtraError
from ift_serve.checks.registry import parse_check
from ift_serve.checks.verdict import failed

MOST_MEMORY = 2 * 2**30
"""Bytes of address space: what a text could make a check need beyond is refused, not taken from the engine."""
_NICENESS = 5
_LENGTH = struct.Struct(">I")


def pack(message: dict[str, Any]) -> bytes:
    """A message with its length before it."""
    body = json.dumps(message).encode()
    return _LENGTH.pack(len(body)) + body


def length_of(head: bytes) -> int:
    """Bytes of the message that follows."""
    return int(_LENGTH.unpack(head)[0])


HEAD = _LENGTH.size
"""Bytes of the length."""


def judged(message: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request."""
    checks = []
    for index, constraint in enumerate(message["constraints"]):
        path = f"constraints[{index}].check"
        try:
            checks.append(parse_check(constraint, path))
        except ValueError as error:
            field, _, said = str(error).partition(": ")
            return {"invalid": [field, said] if said else [path, field]}
        except RecursionError:
            return {"invalid": [path, "is nested too deeply"]}
    response, prompt = message["response"], message["prompt"]
    try:
        # A response that says nothing follows nothing, whatever a check would find in an empty text.
        blank = not response.strip()
        verdicts = [failed("empty answer") if blank else check.verdict(response, prompt) for check in checks]
    except MissingExtraError as error:
        return {"missing": str(error)}
    return {"verdicts": [[v.passed, v.reason, v.span] for v in verdicts]}


def main(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer until the source ends, which it does when the server is gone."""
    if sys.platform == "linux":  # others have the name and not the limit
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    os.nice(_NICENESS)
    sink.write(pack({}))
    sink.flush()
    while len(head := source.read(HEAD)) == HEAD:
        sink.write(pack(judged(json.loads(source.read(length_of(head))))))
        sink.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
