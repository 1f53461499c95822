"""Evaluations for callers of a server: the evaluation's errors as statuses of the server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ift_serve.v1 import evaluation_pb2 as pb


async def hosted_evaluation(request: pb.RunRequest, channel: Any) -> AsyncGenerator[pb.RunResponse, None]:
    """As :class:`ift_serve.server.hosted_evaluation.HostedEvaluation` has it."""
    import contextlib

    import grpc

    from ift_serve.client.errors import InvalidRequestError, ServerError
    from ift_serve.evaluation.errors import EvaluationError
    from ift_serve.evaluation.hosting import hosted
    from ift_serve.server.errors import StatusError

    try:
        async with contextlib.aclosing(hosted(request, channel)) as messages:
            async for message in messages:
                yield message
    except InvalidRequestError as error:
        violations = [(violation.field, violation.message) for violation in error.violations]
        raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, str(error), violations) from None
    except EvaluationError as error:
        raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, str(error)) from None
    except ServerError as error:
        violations = [(violation.field, violation.message) for violation in error.violations]
        retry_after = error.retry_after or 0.0
        raise StatusError(grpc.StatusCode[error.code], error.message, violations, retry_after) from None
