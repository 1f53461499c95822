"""Asks the adherence head of an adapter what it thinks of answers."""

from __future__ import annotations

from collections.abc import Sequence

from ift_serve.engine.protocol.score import ScoreRequest
from ift_serve.frontend.engine_client import BaseEngineClient


async def score_adherence(
    engine: BaseEngineClient,
    request_id: str,
    token_ids: list[int],
    segment_ids: bytes,
    answers: Sequence[list[int]],
    adapter: str,
    *,
    priority: int = 0,
    client: str = "",
    arrival: float = 0.0,
    deadline: float | None = None,
) -> list[float]:
    """The probability, 0 to 1, of each answer that it follows the instruction of its prompt.

    token_ids, segment_ids: of the rendered prompt, a byte a token; heads see the instruction by them.
    answers: token ids as the model would have generated them, with the token that ended them where there was one: a
    head is trained on whole answers. adapter: ``name`` or ``name@version``. Raises EngineError (INVALID, field
    ``adherence``) where the adapter has no adherence head.
    """
    output = await engine.score(
        ScoreRequest(
            request_id=request_id,
            token_ids=token_ids,
            segment_ids=segment_ids,
            continuations=list(answers),
            adherence=True,
            adapter=adapter,
            priority=priority,
            client=client,
            arrival=arrival,
            deadline=deadline,
        )
    )
    found = [score.adherence for score in output.scores]
    assert all(one is not None for one in found)
    return [one for one in found if one is not None]
