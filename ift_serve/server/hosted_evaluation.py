"""Interface of hosted evaluations, which are built on the client and handed in from above."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol

from ift_serve.v1 import evaluation_pb2 as pb


class HostedEvaluation(Protocol):
    """Evaluates what a channel leads to: progress, then the report. Raises StatusError.

    ``channel`` has the methods of a ``grpc.aio`` channel that stubs call. Closing it ends the evaluation.
    """

    def __call__(self, request: pb.RunRequest, channel: Any) -> AsyncGenerator[pb.RunResponse, None]: ...
