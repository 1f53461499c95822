"""One request to a server: the calls that it takes and what is made of their answers."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from ift_serve.client import AsyncClient, Message, Prompt, ServerError
from ift_serve.client.types import Generation as Generated
from ift_serve.evaluation.serving.outcomes import (
    Answer,
    LogLikelihood,
    MalformedAnswerError,
    answer_text,
    checked_scores,
)
from ift_serve.evaluation.serving.requests import Continuations, Generation, WholeText

_STOPS, _STOP_BYTES = 16, 256
"""What a server takes of stop strings; the others are looked for here."""
_LENGTH = "sampling.max_new_tokens"


class Asker:
    """Makes the calls of a request. ``timeout``: seconds for each call, however long the run is."""

    def __init__(self, client: AsyncClient, context_length: int, timeout: float) -> None:
        self._client = client
        self._context_length = context_length
        self._timeout = timeout

    async def generate(self, request: Generation) -> Answer:
        """The answer to the last turn. Raises ServerError, MalformedAnswerError, InvalidRequestError."""
        answer = await self._answer(request)
        said: list[str] = []
        prompt = request.prompt
        for turn in request.turns:
            said.append(answer.text)
            messages = (*_messages(prompt), Message("assistant", answer.text), Message("user", turn))
            prompt = Prompt(messages=messages)
            later = await self._answer(replace(request, prompt=prompt, turns=()))
            answer = replace(
                later,
                prompt_tokens=answer.prompt_tokens + later.prompt_tokens,
                cached_tokens=answer.cached_tokens + later.cached_tokens,
                generated_tokens=answer.generated_tokens + later.generated_tokens,
                drawn_tokens=answer.drawn_tokens + later.drawn_tokens,
                seconds=answer.seconds + later.seconds,
                is_unclosed=answer.is_unclosed or later.is_unclosed,
            )
        return replace(answer, earlier=tuple(said)) if said else answer

    async def score(self, request: Continuations) -> list[LogLikelihood]:
        """Scores in the order of the continuations, by one call. Raises as :meth:`generate`."""
        begun = time.monotonic()
        found = await self._client.score(
            request.context, request.continuations, adapter=request.adapter, timeout=self._timeout
        )
        scores = checked_scores(found.scores, len(request.continuations))
        seconds = time.monotonic() - begun
        tokens, count = found.usage.prompt_tokens, len(scores)
        return [LogLikelihood(s.log_prob, s.is_greedy, s.token_count, tokens, count, seconds) for s in scores]

    async def score_text(self, request: WholeText) -> LogLikelihood:
        """The score of a whole text. Raises as :meth:`generate`."""
        begun = time.monotonic()
        found = await self._client.score_text(request.text, adapter=request.adapter, timeout=self._timeout)
        (score,) = checked_scores(found.scores, 1)
        seconds = time.monotonic() - begun
        return LogLikelihood(score.log_prob, score.is_greedy, score.token_count, found.usage.prompt_tokens, 1, seconds)

    async def _answer(self, request: Generation) -> Answer:
        begun = time.monotonic()
        options, rest = _options(request)
        wanted = options.get("max_new_tokens", 0)
        if wanted >= self._context_length:
            options["max_new_tokens"] = await self._room(request, wanted)
        try:
            found = await self._call(request, options)
        except ServerError as error:
            if not any(violation.field == _LENGTH for violation in error.violations):
                raise
            room = await self._room(request, wanted)
            if not 0 < room < wanted:
                raise
            found = await self._call(request, options | {"max_new_tokens": room})
        if len(found.candidates) != 1:
            raise MalformedAnswerError(f"{len(found.candidates)} answers instead of one")
        text, reasoning, unclosed = answer_text(found.candidates[0])
        usage = found.usage
        return Answer(
            _before(text, rest),
            reasoning,
            found.finish_reason,
            unclosed,
            usage.prompt_tokens,
            usage.cached_tokens,
            usage.generated_tokens,
            usage.drawn_tokens,
            time.monotonic() - begun,
            found.adapter,
            found.seed,
            found.request_id,
        )

    async def _room(self, request: Generation, wanted: int) -> int:
        """Tokens of an answer that the context has room for, ``wanted`` at most; at least 1, which is then refused."""
        prompt = await self._client.tokenize(request.prompt, timeout=self._timeout)
        return max(1, min(wanted, self._context_length - len(prompt.token_ids)))

    async def _call(self, request: Generation, options: dict[str, Any]) -> Generated:
        settings = request.settings
        try:
            return await self._client.generate(
                request.prompt,
                adapter=settings.adapter,
                reasoning=settings.reasoning,
                max_total_tokens=settings.max_total_tokens,
                timeout=self._timeout,
                **options,
            )
        except TypeError as error:
            # A setting of the wrong type is found when the message is built.
            raise ValueError(str(error)) from None


def _options(request: Generation) -> tuple[dict[str, Any], list[str]]:
    """Arguments of the call, and the stop strings that the server would not take."""
    options = dict(request.settings.sampling) | {"seed": request.sampling_seed}
    stops = [stop for stop in options.pop("stop", []) if stop]
    fitting = [stop for stop in stops if len(stop.encode(errors="replace")) <= _STOP_BYTES][:_STOPS]
    if fitting:
        options["stop"] = fitting
    return options, [stop for stop in stops if stop not in fitting]


def _before(text: str, stops: list[str]) -> str:
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


def _messages(prompt: Prompt) -> tuple[Message, ...]:
    """The messages of a prompt that is to be gone on with. Raises ValueError for raw text."""
    if prompt.messages:
        return prompt.messages
    if prompt.instruction is None:
        raise ValueError("turns: what goes on must begin with messages or an instruction")
    return (Message("user", prompt.instruction, prompt.context),)
