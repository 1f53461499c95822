"""The messages between the front process and the engine process.

Plain msgspec structs, encoded as MessagePack. Times are seconds of the machine-wide monotonic clock
(``time.monotonic()``), which both processes share.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class FinishReason(StrEnum):
    """Why a candidate ended. ``STOP`` covers a stop string (found by the front) and a stop id."""

    STOP = "stop"
    EOS = "eos"
    LENGTH = "length"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"


class FailureKind(StrEnum):
    """Why the engine refused or lost a request; the server maps each kind to one gRPC status."""

    INVALID = "invalid"
    OVERLOADED = "overloaded"
    NOT_FOUND = "not_found"
    UNFIT = "unfit"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How tokens are drawn. Validated by the server; ``temperature == 0`` is greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
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
    With ``whole`` little is sent before the request is done, and in large messages: a caller who waits for the whole
    answer should not cost the front a wake-up a token.
    """

    request_id: str
    token_ids: list[int]
    segment_ids: bytes = b""
    sampling: SamplingParams = SamplingParams()
    end_ids: list[int] = []
    strategy: str = "sample"
    whole: bool = False
    priority: int = 0
    client: str = ""
    adapter: str = ""
    arrival: float = 0.0
    deadline: float | None = None


class ScoreRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="score"):
    """Log-probabilities of each continuation after one shared context (at least one token)."""

    request_id: str
    token_ids: list[int]
    continuations: list[list[int]]
    segment_ids: bytes = b""
    priority: int = 0
    client: str = ""
    adapter: str = ""
    arrival: float = 0.0
    deadline: float | None = None


class StopCandidate(msgspec.Struct, frozen=True, tag="stop"):
    """The front has what it needs of one candidate (a stop string was found): free it, send nothing more."""

    request_id: str
    candidate: int


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """The caller is gone or out of time: free the whole request within one step, send nothing more."""

    request_id: str


class LoadAdapter(msgspec.Struct, frozen=True, kw_only=True, tag="load_adapter"):
    """Read the directory ``path`` as a new version of ``name``. ``shown_path`` is what clients know it as.

    The directory, with links followed, must lie in ``root``, and so must what the links in it lead to; an empty
    ``root`` stands for the directory itself. With a ``version`` only that one will do. What was read is copied to a
    directory of that name in ``keep_in``, as long as that holds at most ``keep_bytes``.
    """

    request_id: str
    name: str
    path: str
    shown_path: str
    root: str = ""
    version: str = ""
    keep_in: str = ""
    keep_bytes: int = 0


class UnloadAdapter(msgspec.Struct, frozen=True, kw_only=True, tag="unload_adapter"):
    """Free ``name`` or ``name@version`` once its requests are done, or ``drain_seconds`` have passed."""

    request_id: str
    reference: str
    drain_seconds: float


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """End the engine process once this message is read."""


EngineInput = GenerateRequest | ScoreRequest | StopCandidate | Abort | LoadAdapter | UnloadAdapter | Shutdown


class TokenStatistics(msgspec.Struct, frozen=True, array_like=True):
    """What every sampled token carries, from the raw logits at temperature 1 (natural logarithms)."""

    log_prob: float
    p1: float
    p2: float
    entropy: float
    mean_top20_log_prob: float
    temperature: float


class RequestUsage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counts in tokens, times in seconds since arrival. Sent with a request's first and last outputs.

    ``adapter`` is the version that answers, ``name@version``; empty for the base model.
    """

    prompt_tokens: int
    cached_tokens: int = 0
    queue_seconds: float = 0.0
    first_token_seconds: float = 0.0
    preemptions: int = 0
    adapter: str = ""


class CandidateOutput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="tokens"):
    """New tokens of one candidate. A sampled eos or stop id is included as the last token id, with its reason."""

    request_id: str
    candidate: int
    token_ids: list[int]
    statistics: list[TokenStatistics]
    top_log_probs: list[list[tuple[int, float]]] = []
    finish_reason: FinishReason | None = None
    request_finished: bool = False
    usage: RequestUsage | None = None


class ContinuationScore(msgspec.Struct, frozen=True, array_like=True):
    """Sum and parts of log p(continuation | context), and whether greedy decoding would produce it."""

    log_prob: float
    is_greedy: bool
    token_log_probs: list[float]


class ScoreOutput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="scores"):
    """All continuations of one score request, in the order given. Always the last message of its request."""

    request_id: str
    scores: list[ContinuationScore]
    usage: RequestUsage


class RequestFailed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="failed"):
    """A request ended without an answer. ``field`` names the offending field where there is one."""

    request_id: str
    kind: FailureKind
    message: str
    field: str = ""
    retry_after: float = 0.0


class AdapterState(StrEnum):
    """What an adapter version is doing."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    UNLOADED = "unloaded"
    FAILED = "failed"


class AdapterInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of an adapter. ``bytes``: host memory; ``in_flight``: requests; ``message``: why it failed."""

    name: str
    version: str
    state: AdapterState
    path: str = ""
    components: list[str] = []
    rank: int = 0
    bytes: int = 0
    in_flight: int = 0
    message: str = ""


class AdapterReply(msgspec.Struct, frozen=True, kw_only=True, tag="adapters"):
    """The answer to a load or an unload: the versions it was about."""

    request_id: str
    adapters: list[AdapterInfo]


class EngineLoad(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A snapshot of the engine after a step; counters grow from the start of the process.

    ``adapter_users``: requests in flight by ``name@version``.
    """

    waiting: int = 0
    running: int = 0
    free_blocks: int = 0
    total_blocks: int = 0
    cached_blocks: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    batch_tokens: int = 0
    adapter_bytes: int = 0
    adapter_users: dict[str, int] = {}


class StepOutputs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="outputs"):
    """Everything one step produced, for all requests at once, and every change of an adapter since the last one."""

    outputs: list[CandidateOutput | ScoreOutput | AdapterReply | RequestFailed]
    load: EngineLoad
    adapters: list[AdapterInfo] = []


class ModelDescription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the engine serves, as far as the front needs to know."""

    name: str
    path: str
    architecture: str
    fingerprint: str
    context_length: int
    vocabulary_size: int
    hidden_size: int
    layers: int
    parameters: int
    dtype: str
    device: str
    eos_ids: list[int]
    block_size: int
    total_blocks: int
    max_batch_tokens: int
    max_sequences: int
    attention_backend: str
    features: list[str] = []
    sampling_defaults: SamplingDefaults = SamplingDefaults()


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """First message of an engine process: the model is loaded and warm."""

    model: ModelDescription


class Failed(msgspec.Struct, frozen=True, tag="start_failed"):
    """The engine process could not start; ``message`` says what to do. The process exits after it."""

    message: str


EngineOutput = Ready | Failed | StepOutputs

encode = msgspec.msgpack.Encoder().encode
decode_input = msgspec.msgpack.Decoder(EngineInput).decode
decode_output = msgspec.msgpack.Decoder(EngineOutput).decode
