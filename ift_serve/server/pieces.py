"""Outputs cut into pieces that are quick to handle, and whole answers made of them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ift_serve.engine.protocol.generate import CandidateOutput
from ift_serve.sharing.loop_shares import FREE_ENTRIES
from ift_serve.v1 import inference_pb2 as pb

_CANDIDATES = pb.GenerateResponse.DESCRIPTOR.fields_by_name["candidates"].number
_LENGTH_DELIMITED = 2


def entries(output: CandidateOutput) -> int:
    """Tokens and alternatives of an output."""
    return len(output.token_ids) + sum(map(len, output.top_log_probs))


def pieces(output: CandidateOutput) -> Iterator[CandidateOutput]:
    """The output in pieces of a few hundred entries: its usage comes with the first, its end with the last."""
    count = len(output.token_ids)
    if entries(output) <= FREE_ENTRIES:
        yield output
        return
    for first, end in _cuts(output, count):
        ends = end >= count
        yield msgspec.structs.replace(
            output,
            token_ids=output.token_ids[first:end],
            statistics=output.statistics[first:end],
            top_log_probs=output.top_log_probs[first:end],
            finish_reason=output.finish_reason if ends else None,
            request_finished=output.request_finished and ends,
            usage=output.usage if first == 0 else None,
            conclusion=output.conclusion if ends else None,
        )


def _cuts(output: CandidateOutput, count: int) -> Iterator[tuple[int, int]]:
    """Ranges of tokens with at most ``FREE_ENTRIES`` entries each; tokens may have more and fewer alternatives."""
    first = size = 0
    for place in range(count):
        own = 1 + (len(output.top_log_probs[place]) if place < len(output.top_log_probs) else 0)
        if size + own > FREE_ENTRIES and place > first:
            yield first, place
            first, size = place, 0
        size += own
    yield first, count


class WholeCandidate:
    """A candidate of a whole answer, serialised as it grows.

    Serialised in one go, a large answer would hold up everybody: a protobuf message cannot be serialised in parts. Its
    encoding can: fields one after the other, repeated ones as often as they occur.
    """

    def __init__(self, index: int) -> None:
        self._parts = [pb.Candidate(index=index).SerializeToString()]
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._last = pb.Candidate()

    def add(self, delta: pb.CandidateDelta) -> None:
        """What is new."""
        self._texts.append(delta.text)
        self._thoughts.append(delta.reasoning)
        if delta.tokens:
            self._parts.append(pb.Candidate(tokens=delta.tokens).SerializeToString())
        if delta.finish_reason:
            self._last.finish_reason = delta.finish_reason
        if delta.HasField("matched_stop"):
            self._last.matched_stop.CopyFrom(delta.matched_stop)
        if delta.HasField("confidence"):
            self._last.confidence, self._last.votes = delta.confidence, delta.votes

    def serialised(self) -> bytes:
        """The candidate as a field of the response."""
        self._last.text = "".join(self._texts)
        self._last.reasoning = "".join(self._thoughts)
        body = b"".join([*self._parts, self._last.SerializeToString()])
        return _varint(_CANDIDATES << 3 | _LENGTH_DELIMITED) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    """A number as protobuf writes it: seven bits a byte, the lowest first."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
