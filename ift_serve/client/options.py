"""The keyword arguments of ``generate``, ``stream`` and ``evaluate``, which both clients take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ift_serve.client.output import Output
from ift_serve.client.reasoning import Reasoning
from ift_serve.client.temperature import AdaptiveTemperature, TargetProbability


class SamplingOptions(TypedDict, total=False):
    """Fields of the message Sampling, whose comments give bounds and defaults. None: the server's default."""

    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | None
    seed: int | None
    max_new_tokens: int | None
    stop: Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    ignore_eos: bool | None
    n: int | None
    adaptive: AdaptiveTemperature | None
    reasoning_temperature: float | None
    top_n_sigma: float | None
    p_less: bool | None
    top_h: float | None
    target_probability: TargetProbability | None


class DetailOptions(TypedDict, total=False):
    """Fields of the message Details: what is reported beside the text."""

    tokens: bool
    top_alternatives: int
    statistics: bool
    prompt_token_ids: bool
    processed_log_probs: bool


class GenerateOptions(SamplingOptions, DetailOptions, total=False):
    """What may be asked for beside the prompt.

    ``adapter``: ``name`` or ``name@version``, empty for the base model. ``priority``: higher runs first.
    ``reasoning``: such as ``Trace(budget=512)``. ``max_total_tokens``: of all sequences, hidden ones included.
    ``output``: the form of the answer, such as ``JsonSchema({...})``.
    """

    adapter: str
    priority: int
    reasoning: Reasoning | None
    max_total_tokens: int | None
    output: Output | None


class EvaluationOptions(TypedDict, total=False):
    """Settings of an evaluation. What is left out is the server's default.

    ``adapters``: "base" or adapters, the first of which the others are compared with; none: the model without one.
    ``repeats``: answers to each prompt. ``limit``: prompts of each task. ``decoding``: settings by name, such as
    ``{"temperature": 0.7}``. ``concurrency``: requests at once. ``request_timeout``: seconds for each.
    ``include_rows``: whether the report holds every answer; unless False, it does.
    """

    adapters: Sequence[str]
    repeats: int
    limit: int
    seed: int
    decoding: Mapping[str, Any] | None
    concurrency: int
    request_timeout: float
    include_rows: bool
