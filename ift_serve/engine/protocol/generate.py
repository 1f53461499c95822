"""Messages of generation: a request, the tokens of its candidates, the end of one."""

from __future__ import annotations

import msgspec

from ift_serve.engine.protocol.output import OutputFormat
from ift_serve.engine.protocol.reasoning import Reasoning, RequestLimits
from ift_serve.engine.protocol.results import FinishReason, RequestUsage
from ift_serve.engine.protocol.sampling import AdaptiveTemperature, TargetProbability
from ift_serve.engine.protocol.timeline import Timeline


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How tokens are drawn. Validated by the server; ``temperature == 0`` is greedy.

    ``adaptive``: a temperature for each token, in place of ``temperature``, which is its T_0. Truncations beside top_p,
    top_k and min_p, 0 or False for off: ``top_n_sigma``, ``p_less``, ``top_h`` (:mod:`ift_kernels.sample_rows`).
    ``target_probability``: adaptive-p. ``reasoning_temperature``: in place of ``temperature`` within a thought.
    ``processed_log_probs``: tell log-probabilities in the distribution that tokens are drawn from, too.
    """

    temperature: float = 1.0
    adaptive: AdaptiveTemperature | None = None
    reasoning_temperature: float | None = None
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    top_n_sigma: float = 0.0
    p_less: bool = False
    top_h: float = 0.0
    target_probability: TargetProbability | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int = 0
    max_new_tokens: int = 256
    stop_ids: list[int] = []
    ignore_eos: bool = False
    candidates: int = 1
    top_logprobs: int = 0
    processed_log_probs: bool = False


class SamplingDefaults(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a request's unset parameters stand for. ``not_applied``: what the model asks for and is not done."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}
    max_new_tokens: int = 256
    not_applied: list[str] = []


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="generate"):
    """Continue ``token_ids``. ``segment_ids`` holds one byte per prompt token (empty: all template).

    ``end_ids``: tokens that end an answer by tokenizer and chat template, beside those that the model names.
    ``strategy``: its registered name; "sample" leaves each candidate to itself; ``reasoning``: its
    settings. ``stop``: strings that end an answer, for strategies whose sequences the server process does not see.
    ``limits``: what it may take. ``output``: the form of the answer; a thought before it has none.
    With ``whole`` little is sent before the request is done, and in large messages: a caller who waits for the whole
    answer should not cost the server process a wake-up a token. A ``traced`` one ends with its ``Timeline``.
    """

    request_id: str
    token_ids: list[int]
    segment_ids: bytes = b""
    sampling: SamplingParams = SamplingParams()
    end_ids: list[int] = []
    strategy: str = "sample"
    reasoning: Reasoning | None = None
    stop: list[str] = []
    limits: RequestLimits = RequestLimits()
    output: OutputFormat | None = None
    whole: bool = False
    traced: bool = False
    priority: int = 0
    client: str = ""
    adapter: str = ""
    arrival: float = 0.0
    deadline: float | None = None


class StopCandidate(msgspec.Struct, frozen=True, tag="stop"):
    """The server process has what it needs of one candidate (a stop string was found): free it, send nothing more."""

    request_id: str
    candidate: int


class TokenStatistics(msgspec.Struct, frozen=True, array_like=True):
    """What every sampled token carries, from the raw logits at temperature 1 (natural logarithms).

    A ``forced`` token was not drawn: it has no statistics, and zeros stand for them. ``processed``: log-probabilities
    of the token and of its alternatives in the distribution that it was drawn from, where the request asks for them.
    """

    log_prob: float
    p1: float
    p2: float
    entropy: float
    mean_top20_log_prob: float
    temperature: float
    forced: bool = False
    processed: tuple[float, ...] = ()


class BranchSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the sequences that a strategy compared: its answer (empty: none was found), why it ended, its tokens.

    ``confidence``: what the strategy ranks by; ``votes``: the weight it gave its answer.
    """

    answer: str
    confidence: float = 0.0
    votes: float = 0.0
    tokens: int = 0
    ended: FinishReason | None = None
    chosen: bool = False


class Conclusion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a strategy decided and on what grounds. ``mode``: what ``auto`` chose, or the strategy's own name."""

    mode: str
    answer: str = ""
    confidence: float = 0.0
    branches: list[BranchSummary] = []


class CandidateOutput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="tokens"):
    """New tokens of one candidate. A sampled eos or stop id is included as the last token id, with its reason.

    ``conclusion`` and ``timeline`` come with the last one.
    """

    request_id: str
    candidate: int
    token_ids: list[int]
    statistics: list[TokenStatistics]
    top_log_probs: list[list[tuple[int, float]]] = []
    finish_reason: FinishReason | None = None
    request_finished: bool = False
    usage: RequestUsage | None = None
    conclusion: Conclusion | None = None
    timeline: Timeline | None = None
