"""Requirements of strategies on request and model, refused with the name of the field at fault."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from ift_serve.decoding.answer_finder import AnswerFinder, AnswerSpanError
from ift_serve.decoding.context import StrategyContext
from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.engine.protocol.reasoning import AnswerSpan
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind
from ift_serve.text.token_texts import TokenDecoder

_T = TypeVar("_T")


def invalid(field: str, message: str) -> RefusedError:
    """The error for a field that cannot be what it is."""
    return RefusedError(FailureKind.INVALID, f"{field}: {message}", field)


def require_known(field: str, given: str, names: Any) -> None:
    """Raise RefusedError for a name that is not one of ``names``, a type of literals."""
    if given not in get_args(names):
        raise invalid(field, f"{given!r}; there are {', '.join(get_args(names))}")


def settings_of(request: GenerateRequest, kind: type[_T]) -> _T:
    """The settings of a request, which must be of this kind. Raises RefusedError."""
    if not isinstance(request.reasoning, kind):
        given = "no settings" if request.reasoning is None else f"settings of {type(request.reasoning).__name__}"
        raise invalid("reasoning", f"the strategy {request.strategy!r} has {given}")
    return request.reasoning


def decoder_of(context: StrategyContext) -> TokenDecoder:
    """What turns the model's tokens into text. Raises RefusedError."""
    if context.decoder is None:
        raise RefusedError(FailureKind.UNFIT, "reasoning: the model has no tokenizer that tells tokens' texts")
    return context.decoder


def finder_of(span: AnswerSpan, decoder: TokenDecoder, path: str) -> AnswerFinder:
    """What finds answers; ``path``: the field that holds the span's. Raises RefusedError."""
    try:
        return AnswerFinder(span, decoder)
    except AnswerSpanError as error:
        raise invalid(f"{path}.{error.field}", error.message) from None


def require_one_candidate(request: GenerateRequest, path: str) -> None:
    """Raise RefusedError for a request for several answers where the strategy gives one."""
    if request.sampling.candidates != 1:
        raise invalid("sampling.candidates", f"{request.sampling.candidates}; {path} gives one answer, so it must be 1")


def require_draws(request: GenerateRequest, path: str) -> None:
    """Raise RefusedError where all samples would be the same."""
    if request.sampling.temperature == 0:
        raise invalid("sampling.temperature", f"0; the samples of {path} would all be the same")
