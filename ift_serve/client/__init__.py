"""The Python client of an ift-serve server, sync and asyncio with the same names."""

from ift_serve.client.aio import AsyncClient
from ift_serve.client.errors import FieldViolation, InvalidRequestError, ServerError
from ift_serve.client.sync import Client
from ift_serve.client.types import (
    Adapter,
    Alternative,
    Candidate,
    Delta,
    Generation,
    Message,
    ModelInfo,
    Prompt,
    Score,
    Scores,
    Statistics,
    Token,
    Tokenization,
    Usage,
)

__all__ = [
    "Adapter",
    "Alternative",
    "AsyncClient",
    "Candidate",
    "Client",
    "Delta",
    "FieldViolation",
    "Generation",
    "InvalidRequestError",
    "Message",
    "ModelInfo",
    "Prompt",
    "Score",
    "Scores",
    "ServerError",
    "Statistics",
    "Token",
    "Tokenization",
    "Usage",
]
