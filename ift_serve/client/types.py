"""Argument and result types of calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ift_serve.client.reasoning import AppliedReasoning, BranchSummary, Conclusion, FinishReason

Role = Literal["system", "user", "assistant", "tool"]
Channel = Literal["", "reasoning", "answer", "marker"]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a message: instruction, or material."""

    text: str
    is_context: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation; ``context`` is material that follows the text.

    ``parts``: in place of both, pieces that are joined without anything between.
    """

    role: Role
    text: str = ""
    context: str = ""
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """Functions that the assistant called, ``{"id", "type": "function", "function": {"name", "arguments": {...}}}``."""
    tool_call_id: str = ""
    name: str = ""
    """Of which call and which function a message of the role tool is the result."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to answer; make one with the class methods. A plain string where a prompt is expected is an instruction."""

    instruction: str | None = None
    context: str = ""
    messages: tuple[Message, ...] = ()
    continue_final_message: bool = False
    text: str | None = None
    without_special_tokens: bool = False
    token_ids: tuple[int, ...] = ()
    segments: tuple[str, ...] = ()
    """One per token id, as :class:`Tokenization` names them, or none: all template."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Functions that the model may call, ``{"type": "function", "function": {...}}``, shown by its chat template."""

    @classmethod
    def from_messages(
        cls,
        messages: Sequence[Message | tuple[Role, str]],
        *,
        continue_final: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Prompt:
        """A conversation. ``tools``: functions that the model may call; its calls are text of the answer."""
        listed = tuple(m if isinstance(m, Message) else Message(*m) for m in messages)
        return cls(messages=listed, continue_final_message=continue_final, tools=tuple(tools))

    @classmethod
    def from_text(cls, text: str, *, without_special_tokens: bool = False) -> Prompt:
        """Raw text, without a chat template."""
        return cls(text=text, without_special_tokens=without_special_tokens)

    @classmethod
    def from_tokens(cls, token_ids: Sequence[int], segments: Sequence[str] = ()) -> Prompt:
        """Raw token ids."""
        return cls(token_ids=tuple(token_ids), segments=tuple(segments))


PromptLike = str | Prompt | Sequence[Message]


@dataclass(frozen=True, slots=True)
class Statistics:
    """The model's raw distribution where a token was drawn (natural logarithms)."""

    p1: float
    p2: float
    entropy: float
    mean_top20_log_prob: float
    temperature: float


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have been drawn."""

    token_id: int
    text: str
    log_prob: float
    raw: bytes = b""
    """Its own bytes, parts of characters included."""
    processed_log_prob: float | None = None
    """In the distribution that was drawn from, -inf where it could not be drawn; where asked for."""


@dataclass(frozen=True, slots=True)
class Token:
    """A generated token."""

    token_id: int
    text: str
    log_prob: float
    alternatives: tuple[Alternative, ...] = ()
    statistics: Statistics | None = None
    raw: bytes = b""
    """Its own bytes, parts of characters included."""
    channel: Channel = ""
    """What it is part of; empty where the model has no markers of thoughts."""
    forced: bool = False
    """Whether it was appended without being drawn; its log-probability is 0 then, and it has no statistics."""
    processed_log_prob: float | None = None
    """In the distribution that it was drawn from, after temperature and filters; where asked for."""

    @property
    def margin(self) -> float | None:
        """p1 - p2 of the raw distribution; None without statistics."""
        return None if self.statistics is None else self.statistics.p1 - self.statistics.p2


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts of tokens, times in seconds. ``drawn_tokens`` and ``forced_tokens``: of all sequences, hidden ones too.

    ``drafted_tokens`` were guessed and computed before they were drawn; ``accepted_tokens``: draws that took no step of
    their own because of that.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    queue_seconds: float = 0.0
    first_token_seconds: float = 0.0
    total_seconds: float = 0.0
    reasoning_tokens: int = 0
    answer_tokens: int = 0
    drawn_tokens: int = 0
    forced_tokens: int = 0
    sequences: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(slots=True)
class Candidate:
    """One answer."""

    index: int
    text: str = ""
    finish_reason: FinishReason = ""
    matched_stop: str | int | None = None
    tokens: list[Token] = field(default_factory=list)
    reasoning: str = ""
    """The thought; ``text`` is the answer."""
    confidence: float | None = None
    """What a strategy that compared several ranked it by."""
    votes: float | None = None


@dataclass(slots=True)
class Generation:
    """All answers to one prompt."""

    candidates: list[Candidate]
    usage: Usage
    model: str
    adapter: str
    seed: int
    request_id: str = ""
    prompt_token_ids: list[int] = field(default_factory=list)
    sampling: dict[str, Any] = field(default_factory=dict)
    """How the tokens were drawn, defaults filled in; the same names as the arguments."""
    applied_reasoning: AppliedReasoning | None = None
    """How the answer was reasoned about, as it was applied; None where nothing was asked for."""
    conclusion: Conclusion | None = None
    """What was decided, by strategies that compare or choose."""

    @property
    def text(self) -> str:
        """The first answer's text."""
        return self.candidates[0].text

    @property
    def reasoning(self) -> str:
        """The first answer's thought."""
        return self.candidates[0].reasoning

    @property
    def answer(self) -> str:
        """The answer that a strategy found in the text; the text itself where none was looked for or found."""
        return (self.conclusion.answer if self.conclusion else "") or self.text

    @property
    def branches(self) -> tuple[BranchSummary, ...]:
        """What a strategy compared, in order of creation."""
        return self.conclusion.branches if self.conclusion else ()

    @property
    def finish_reason(self) -> FinishReason:
        """Why the first answer ended."""
        return self.candidates[0].finish_reason

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of one candidate of a stream."""

    index: int
    text: str
    finish_reason: FinishReason = ""
    matched_stop: str | int | None = None
    tokens: tuple[Token, ...] = ()
    reasoning: str = ""
    """New text of the thought."""
    confidence: float | None = None
    votes: float | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probability of one continuation or text."""

    log_prob: float
    is_greedy: bool
    token_count: int
    token_log_probs: tuple[float, ...] = ()
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores in the order asked."""

    scores: list[Score]
    usage: Usage
    model: str
    adapter: str


@dataclass(frozen=True, slots=True)
class Tokenization:
    """A prompt as the model sees it."""

    token_ids: list[int]
    segments: list[str]
    text: str
    pieces: list[str]
    raw: list[bytes] = field(default_factory=list)
    """The bytes of each token, parts of characters included."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """One version of an adapter. ``bytes``: host memory, unless it is evicted.

    ``state``: loading, ready, evicted (read again when a request asks for it), returning (being read again), draining,
    unloaded or failed.

    ``trained_on``: ``family:NAME``, ``check:TYPE`` and ``instruction:ID``, as far as its directory says.
    """

    name: str
    version: str
    state: str
    path: str
    components: tuple[str, ...]
    rank: int
    bytes: int
    in_flight: int
    message: str
    trained_on: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}@{self.version} ({self.state})" if self.version else f"{self.name} ({self.state})"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The served model, what may be asked of it, and its load."""

    name: str
    architecture: str
    fingerprint: str
    parameters: int
    vocabulary_size: int
    context_length: int
    dtype: str
    device: str
    attention_backend: str
    chat_template: str
    features: tuple[str, ...]
    version: str
    limits: dict[str, int]
    load: dict[str, int]
    sampling_defaults: dict[str, Any] = field(default_factory=dict)
    """What sampling arguments that are not given stand for."""
    sampling_not_applied: tuple[str, ...] = ()
    """What the model's own settings ask for beyond that, and no answer gets."""
    thought_markers: tuple[str, str] | None = None
    """What opens and closes the model's thoughts; None where nothing is known of them."""
    template_fingerprint: str = ""
    """Hash of chat template and tokenizer."""
    weights: str = "stored"
    """What they are in memory: stored, int8, int4 or gguf."""
    eos_token_ids: tuple[int, ...] = ()
    """What ends an answer."""
