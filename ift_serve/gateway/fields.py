"""Fields that chat completions and completions share, and how what is wrong with one is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ift_serve.client import AdaptiveTemperature, TargetProbability
from ift_serve.gateway.errors import ApiError, invalid
from ift_serve.gateway.reasoning_fields import ReasoningFields

_MOST_TEXTS, _MOST_CONTAINERS = 2**15, 2**14
"""Texts and names, and lists and objects, in a body: a mebibyte of nothing but these takes half a second to read."""
_UNSUPPORTED = {
    "audio": "there is only text",
    "best_of": "ask for `reasoning` with best_of",
    "echo": "the prompt is not repeated",
    "function_call": "calls of functions are not read from the text",
    "functions": "use tools",
    "metadata": "nothing is stored",
    "moderation": "nothing is moderated",
    "prediction": "guesses are the server's own (`serve --speculation`)",
    "prompt_cache_key": "prefixes are reused without it",
    "prompt_cache_retention": "prefixes are reused without it",
    "safety_identifier": "callers are told apart by their tokens",
    "suffix": "text is continued only",
    "user": "callers are told apart by their tokens",
    "verbosity": "no model is told of it; say it in the prompt",
    "web_search_options": "nothing is searched",
}
"""Parameters of OpenAI's that mean nothing here, and why."""

RequestT = TypeVar("RequestT", bound="Strict")


class Strict(BaseModel):
    """Unknown fields and values of another type are refused; null stands for a field that is left out."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class StreamOptions(Strict):
    """``include_usage``: whether a last chunk tells the usage."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class SharedFields(Strict):
    """What both kinds of request take. The second half are settings of our own (the client's ``extra_body``)."""

    model: str
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**64)
    stop: str | Annotated[list[str], Field(fail_fast=True)] | None = None
    n: int | None = Field(default=None, ge=1, lt=2**31)
    logit_bias: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, lt=2**31)

    adapter: str | None = None
    adaptive: AdaptiveTemperature | None = None
    grammar: str | None = None
    ignore_eos: bool | None = None
    max_total_tokens: int | None = Field(default=None, ge=1, lt=2**63)
    min_p: float | None = None
    p_less: bool | None = None
    priority: int | None = Field(default=None, ge=-100, le=100)
    processed_log_probs: bool | None = None
    reasoning: ReasoningFields | None = None
    reasoning_temperature: float | None = None
    regex: str | None = None
    repetition_penalty: float | None = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(fail_fast=True)] | None = None
    target_probability: TargetProbability | None = None
    timeout: float | None = Field(default=None, gt=0, description="seconds")
    token_details: bool | None = None
    top_h: float | None = None
    top_k: int | None = Field(default=None, ge=0, lt=2**32)
    top_n_sigma: float | None = None


def parse(kind: type[RequestT], body: bytes) -> RequestT:
    """A request's fields. Raises ApiError that names the first field at fault."""
    _check_structure(body)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        listed = error.errors(include_url=False, include_context=False, include_input=False)
        raise _told(listed) from None


def _check_structure(body: bytes) -> None:
    """Raise ApiError for a body of more pieces than any request has."""
    texts_and_rest = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    if len(texts_and_rest) // 2 > _MOST_TEXTS:
        raise ApiError(400, f"the body holds more than {_MOST_TEXTS} texts and names", None, "too_many_fields")
    rest = b"".join(texts_and_rest[::2])
    if rest.count(b"[") + rest.count(b"{") > _MOST_CONTAINERS:
        raise ApiError(400, f"the body holds more than {_MOST_CONTAINERS} lists and objects", None, "too_many_fields")


def _told(errors: list[Any]) -> ApiError:
    # Of a field of several types there are errors for each of them; the one that got furthest is meant.
    first = max(errors, key=lambda error: len(error["loc"]))
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body cannot be read as JSON: {first['msg']}", None, "invalid_json")
    place = _place(first["loc"])
    if not place:
        return ApiError(400, "the body must be a JSON object", None, "invalid_json")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        if (why := _UNSUPPORTED.get(place)) is not None:
            return ApiError(400, f"{place} is not supported: {why}", place, "unsupported_parameter")
        return ApiError(400, f"{place} is not a parameter of this server", place, "unknown_parameter")
    if first["type"] == "missing":
        return ApiError(400, f"{place} is missing", place, "missing_required_parameter")
    kinds = dict.fromkeys(_plain(error["msg"]) for error in errors if _place(error["loc"]) == place)
    return invalid(place, "; or ".join(kinds))


def _plain(message: str) -> str:
    text = message.removeprefix("Value error, ").replace("Input should be", "must be")
    return text


def _place(location: tuple[Any, ...]) -> str:
    """The path of a field: what pydantic adds to tell the types of one apart is left out."""
    text = ""
    for place, part in enumerate(location):
        if isinstance(part, int):
            text += f"[{part}]"
        elif not (_is_type(part) or (text == "response_format" and place == 1 and len(location) > 2)):
            text += f".{part}" if text else part
    return text


def _is_type(part: str) -> bool:
    return part in ("str", "int", "float", "none") or "[" in part or part[:1].isupper()


def stop_strings(stop: str | list[str] | None) -> list[str]:
    """Always a list."""
    return [stop] if isinstance(stop, str) else list(stop or ())


def token_biases(given: Mapping[str, Any] | None) -> dict[int, float] | None:
    """Biases by token id, which JSON has as text. Raises ApiError."""
    if given is None:
        return None
    found = {}
    for key, bias in given.items():
        if not (key.isascii() and key.isdigit() and int(key[:11]) < 2**32):
            raise invalid("logit_bias", f"{key[:40]!r} is not a token id")
        if isinstance(bias, bool) or not isinstance(bias, int | float):
            raise invalid(f"logit_bias[{key}]", "must be a number")
        found[int(key)] = bias
    return found
