"""Outcome of a request: an answer, a log-probability, or why there is none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ift_serve.client import Candidate, Score

FinishReason = Literal["", "stop", "eos", "length", "cancelled", "deadline"]
_THOUGHT = ("<think>", "</think>")
"""How a thought is written by models whose markers the server does not know."""


class MalformedAnswerError(Exception):
    """An answer that cannot be what was asked for; scoring it would give a plausible number without any meaning."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A generated answer; ``text`` is without its thought, and empty where the thought was not closed.

    ``seconds``: from asking to having it, as the caller saw it. ``earlier``: answers to the turns before the last.
    """

    text: str
    reasoning: str = ""
    finish_reason: FinishReason = ""
    is_unclosed: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    drawn_tokens: int = 0
    seconds: float = 0.0
    adapter: str = ""
    seed: int = 0
    request_id: str = ""
    earlier: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing, so that no check may be asked about it."""
        return not self.text.strip()

    @property
    def is_cut(self) -> bool:
        """Whether it ended where it was not meant to: at the length, at the deadline, or within a thought."""
        return self.is_unclosed or self.finish_reason in ("length", "deadline", "cancelled")


@dataclass(frozen=True, slots=True)
class LogLikelihood:
    """Sum of log-probabilities (nats) of a continuation or text, and whether greedy decoding would give it.

    ``prompt_tokens``: what the call that it came with had to read, shared by ``shared_by`` scores.
    """

    log_prob: float
    is_greedy: bool
    tokens: int
    prompt_tokens: int = 0
    shared_by: int = 1
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without an answer, counted apart: it is neither right nor wrong."""

    code: str
    message: str
    request_id: str = ""
    attempts: int = 1

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


Outcome = Answer | LogLikelihood | Failure


def answer_text(candidate: Candidate) -> tuple[str, str, bool]:
    """Answer, thought, and whether the thought was never closed, in which case there is no answer."""
    text, reasoning = candidate.text, candidate.reasoning
    if reasoning:
        return text, reasoning, not text.strip() and candidate.finish_reason in ("length", "deadline", "cancelled")
    begin, end = _THOUGHT
    if text.lstrip().startswith(begin):
        thought, closed, rest = text.partition(end)
        thought = thought.lstrip().removeprefix(begin)
        return (rest.lstrip("\n"), thought, False) if closed else ("", thought, True)
    return text, "", False


def checked_scores(scores: Sequence[Score], wanted: int) -> Sequence[Score]:
    """Scores that can be what was asked for. Raises MalformedAnswerError.

    A server without log-probabilities of prompts gives zeros, with which choices are scored as chance has it.
    """
    if len(scores) != wanted:
        raise MalformedAnswerError(f"{len(scores)} scores of {wanted} continuations")
    for score in scores:
        if score.token_count < 1:
            raise MalformedAnswerError("a score of no tokens")
        if not math.isfinite(score.log_prob) or score.log_prob > 1e-3:
            raise MalformedAnswerError(f"a log-probability of {score.log_prob}")
    if wanted > 1 and all(score.log_prob == 0.0 for score in scores):
        raise MalformedAnswerError("all log-probabilities are 0: the server does not score prompts")
    return scores


def packed(outcome: Answer | LogLikelihood) -> dict[str, Any]:
    """Plain values that :func:`unpacked` reads."""
    return {"type": type(outcome).__name__} | dataclasses.asdict(outcome)


def unpacked(values: dict[str, Any]) -> Answer | LogLikelihood:
    """An outcome from its plain values."""
    if values.pop("type") == "Answer":
        return Answer(**(values | {"earlier": tuple(values["earlier"])}))
    return LogLikelihood(**values)
