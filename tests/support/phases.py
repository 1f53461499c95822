"""A scripted model in front of the phase machine, and tokenizers whose tokens know nothing of markers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import count

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ift_serve.text.encoder import TextEncoder
from ift_serve.text.phases import (
    Channel,
    ChannelPiece,
    ChannelRouter,
    MarkerPair,
    Phase,
    PhaseBuilder,
    PhaseSettings,
    PhaseState,
    Routed,
    ThoughtMarkers,
)
from ift_serve.text.token_texts import TokenDecoder

OPEN, CLOSE, BLANK, END = 1, 2, 3, 0
"""Control tokens of the models that are only numbers; every other number is a word."""
IDS = ThoughtMarkers.of_ids([OPEN], [CLOSE], blanks=[BLANK])
TYPED = MarkerPair("<reason>", "</reason>")
"""Markers for which no tokenizer has a token."""


@dataclass
class Written:
    """What was generated. ``phases``: in which phase each drawn token was drawn; None for forced ones."""

    state: PhaseState
    token_ids: list[int] = field(default_factory=list)
    phases: list[Phase | None] = field(default_factory=list)
    routed: list[Routed] = field(default_factory=list)

    def channel(self, channel: Channel) -> list[int]:
        """The tokens that count for a channel."""
        return [part.token_id for part in self.routed if part.channel is channel and part.counts]

    @property
    def drawn(self) -> list[int]:
        """The tokens that were not forced."""
        return [i for i, phase in zip(self.token_ids, self.phases, strict=True) if phase is not None]


def write(state: PhaseState, draws: Iterable[int], limit: int = 1000) -> Written:
    """Generate as an engine would: what has to come is appended, anything else is the next of ``draws``."""
    written, source = Written(state), iter(draws)
    while len(written.token_ids) < limit:
        phase = None
        if state.expected:
            token_id = state.expected[0]
        else:
            phase, token_id = state.phase, next(source, END)
        if token_id == END:
            break
        written.token_ids.append(token_id)
        written.phases.append(phase)
        written.routed += state.observe(token_id).routed
    written.routed += state.finish()
    return written


def words(start: int = 100) -> Iterator[int]:
    """A model that never stops."""
    return count(start)


def begin(prompt: Iterable[int] = (), segments: bytes = b"", **settings: object) -> PhaseState:
    """The state of a model of numbers."""
    return PhaseState.begin(PhaseSettings(IDS, **settings), list(prompt), segments)  # type: ignore[arg-type]


@cache
def merging() -> Tokenizer:
    """Merges over any characters, so that parts of markers melt with what is beside them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    corpus = ["x.</", "y.</", "a>\n\n", "b>\n\n", "re", "as", "on", "<b"] * 4 + ["q.</reason>\n\n"]
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


@cache
def builder(tokenizer: Tokenizer, template: str = "") -> PhaseBuilder:
    """The settings of a tokenizer of the ``tokenizers`` library."""
    return PhaseBuilder(TextEncoder(tokenizer), TokenDecoder(tokenizer), template)


def texts(pieces: Iterable[ChannelPiece]) -> dict[Channel, str]:
    """The text of each channel that is shown."""
    pieces = list(pieces)
    return {
        channel: "".join(piece.text for piece in pieces if piece.channel is channel)
        for channel in (Channel.REASONING, Channel.ANSWER)
    }


def unary(state: PhaseState, tokenizer: Tokenizer, token_ids: Iterable[int]) -> dict[Channel, str]:
    """The channels of a whole answer."""
    router = ChannelRouter(state.copy(), TokenDecoder(tokenizer))
    return texts([*router.push(token_ids), *router.flush()])
