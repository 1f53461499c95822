"""The form of answers, as requests name it."""

from __future__ import annotations

from ift_serve.engine.protocol.output import OutputFormat
from ift_serve.v1 import inference_pb2 as pb


def output_format(message: pb.Output) -> OutputFormat | None:
    """None where a request names no form."""
    kind = message.WhichOneof("kind")
    if kind is None:
        return None
    return OutputFormat(kind=kind, text=getattr(message, kind))
