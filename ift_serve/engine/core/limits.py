"""Refuses requests that the engine could not carry out, with the name of the field at fault."""

from __future__ import annotations

from collections.abc import Collection

from ift_serve.engine.core.sampling_limits import sampling_fault
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.engine.protocol.reasoning import BestOf
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.engine.protocol.score import ScoreRequest


def _invalid(field: str, message: str) -> RefusedError:
    return RefusedError(FailureKind.INVALID, f"{field}: {message}", field)


def _judges(request: GenerateRequest) -> bool:
    """Whether answers are judged by an adherence head, so that their last token is an input too."""
    return isinstance(request.reasoning, BestOf) and request.reasoning.by == "adherence"


class RequestValidator:
    """The limits of one engine."""

    def __init__(self, model: ModelDescription, block_size: int, total_blocks: int) -> None:
        self._vocabulary = model.vocabulary_size
        self._context = model.context_length
        self._block_size = block_size
        self._total_blocks = total_blocks

    def check(self, request: GenerateRequest | ScoreRequest, components: Collection[str] = ()) -> None:
        """Raise ``RefusedError`` unless the request can be carried out on an idle engine.

        components: those of the request's adapter.
        """
        self._check_ids("token_ids", request.token_ids)
        if not request.token_ids:
            raise _invalid("token_ids", "the prompt has no token; at least one is needed")
        if request.segment_ids and len(request.segment_ids) != len(request.token_ids):
            raise _invalid("segment_ids", f"{len(request.segment_ids)} segments for {len(request.token_ids)} tokens")
        if isinstance(request, GenerateRequest):
            self._check_generation(request)
            if (fault := sampling_fault(request.sampling, components)) is not None:
                raise _invalid(*fault)
        else:
            self._check_continuations(request)
        self._check_judged(request, components)

    def check_strategy(self, request: GenerateRequest, width: int, extra_tokens: int) -> None:
        """Raise ``RefusedError`` unless what a strategy needs beside the request's own tokens can be had."""
        if width > request.limits.sequences:
            raise _invalid("limits.sequences", f"{request.limits.sequences}; the strategy starts with {width}")
        if width > request.limits.total_tokens:
            text = f"{request.limits.total_tokens}; the strategy starts with {width} sequences of at least a token"
            raise _invalid("reasoning.max_total_tokens", text)
        if extra_tokens:
            most = len(request.token_ids) + request.sampling.max_new_tokens + extra_tokens
            inputs = min(most, self._context) - (not _judges(request))
            self._check_fit("reasoning", "tokens of prompt, thought and answer", inputs)

    def _check_generation(self, request: GenerateRequest) -> None:
        sampling = request.sampling
        prompt = len(request.token_ids)
        if sampling.candidates < 1:
            raise _invalid("sampling.candidates", f"{sampling.candidates}; at least 1 is needed")
        if sampling.max_new_tokens < 1:
            raise _invalid("sampling.max_new_tokens", f"{sampling.max_new_tokens}; at least 1 is needed")
        self._check_ids("sampling.logit_bias", list(sampling.logit_bias))
        if prompt >= self._context:
            raise _invalid(
                "token_ids", f"{prompt} prompt tokens leave no room to answer in a context of {self._context}"
            )
        self._check_fit("token_ids", "prompt tokens", prompt)
        longest = min(prompt + sampling.max_new_tokens, self._context) - (not _judges(request))
        self._check_fit("sampling.max_new_tokens", "tokens of prompt and answer", longest)

    def _check_continuations(self, request: ScoreRequest) -> None:
        if not request.continuations:
            raise _invalid("continuations", "at least one is needed")
        for index, tokens in enumerate(request.continuations):
            field = f"continuations[{index}]"
            self._check_ids(field, tokens)
            total = len(request.token_ids) + len(tokens)
            # The last token is only predicted, never an input, unless it is judged.
            inputs = total if request.adherence else total - 1
            if inputs > self._context:
                raise _invalid(
                    "token_ids" if len(request.token_ids) >= self._context else field,
                    f"{total} tokens of context and continuation exceed a context of {self._context}",
                )
            self._check_fit(field, "tokens of context and continuation", inputs)

    def _check_judged(self, request: GenerateRequest | ScoreRequest, components: Collection[str]) -> None:
        """What asks an adherence head needs an adapter that has one, and a text."""
        if isinstance(request, ScoreRequest):
            field = "adherence" if request.adherence else ""
            empty = next((i for i, tokens in enumerate(request.continuations) if not tokens), None)
            if field and empty is not None:
                raise _invalid(f"continuations[{empty}]", "is empty; there is nothing to judge")
        else:
            field = "reasoning.best_of.by" if _judges(request) else ""
        if field and "adherence_head" not in components:
            whose = f"the adapter {request.adapter!r} has none" if request.adapter else "the base model has none"
            raise _invalid(field, f"asks an adherence head, and {whose}; name an adapter that was trained with one")

    def _check_ids(self, field: str, ids: list[int]) -> None:
        if ids and not (min(ids) >= 0 and max(ids) < self._vocabulary):
            wrong = next(token for token in ids if not 0 <= token < self._vocabulary)
            raise _invalid(field, f"token {wrong} is outside the vocabulary of {self._vocabulary}")

    def _check_fit(self, field: str, what: str, tokens: int) -> None:
        capacity = self._total_blocks * self._block_size
        if tokens > capacity:
            raise _invalid(field, f"{tokens} {what} exceed the cache, which holds {capacity} tokens")
