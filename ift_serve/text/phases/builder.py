"""Settings of phases for one tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from ift_serve.text.encoder import TextEncoder
from ift_serve.text.message import PromptError
from ift_serve.text.phases.settings import PhaseError, PhaseSettings, ThoughtStart
from ift_serve.text.phases.thought_markers import ThoughtMarker, ThoughtMarkers
from ift_serve.text.phases.vocabulary import TokenBytes
from ift_serve.text.prompt import PromptRenderer
from ift_serve.text.token_texts import TokenDecoder

_LONGEST_MARKER = 64
_LONGEST_MESSAGE = 4096
_MARKER_CHOICES = 16
"""Pairs of markers that are kept ready beside the model's own."""
_ANCHORS = ("a", "\n", ".", "")
"""Texts behind which a message is tokenised, so that it gets no prefix that belongs to the beginning of a text."""


@dataclass(frozen=True, slots=True)
class MarkerPair:
    """The texts of the markers around a thought."""

    opening: str
    closing: str


KNOWN_MARKERS = (
    MarkerPair("<think>", "</think>"),
    MarkerPair("<thinking>", "</thinking>"),
    MarkerPair("<thought>", "</thought>"),
    MarkerPair("<reasoning>", "</reasoning>"),
    MarkerPair("[THINK]", "[/THINK]"),
    MarkerPair("<seed:think>", "</seed:think>"),
    MarkerPair("<|START_THINKING|>", "<|END_THINKING|>"),
    MarkerPair("<|begin_of_thought|>", "<|end_of_thought|>"),
    MarkerPair("\u25c1think\u25b7", "\u25c1/think\u25b7"),
)
"""What models in use put around their thoughts."""


class PhaseBuilder:
    """Finds the markers of a model and makes settings of them. Safe to use from several threads.

    ``template``: source of the chat template. ``configured``: the markers of the model's configuration, which go
    before those that are found.
    """

    def __init__(
        self, encoder: TextEncoder, decoder: TokenDecoder, template: str = "", configured: MarkerPair | None = None
    ) -> None:
        self._encoder = encoder
        self._decoder = decoder
        self._bytes: TokenBytes | None = None
        self._markers = lru_cache(_MARKER_CHOICES)(self._make_markers)
        self.pair = configured or _detect(template, encoder.markers.ids)
        """The model's own markers; None where nothing tells."""
        self.is_opened_by_prompt = False
        """Whether the template opens thoughts where it is asked to, so that this model has not learned to do it."""

    @classmethod
    def of(cls, renderer: PromptRenderer, configured: MarkerPair | None = None) -> PhaseBuilder:
        """For the tokenizer and the template with which prompts are rendered."""
        builder = cls(renderer.encoder, renderer.decoder, renderer.template, configured)
        builder.is_opened_by_prompt = builder.pair is not None and renderer.opens_thoughts(builder.pair.opening)
        return builder

    def settings(
        self,
        *,
        pair: MarkerPair | None = None,
        budget: int | None = None,
        total_budget: int | None = None,
        minimum: int = 0,
        closing_message: str = "",
        start: ThoughtStart = ThoughtStart.FREE,
        markers_anywhere: bool | None = None,
    ) -> PhaseSettings:
        """Settings of one request. ``pair``: its own markers, which go before the model's.

        The first time a pair is named the whole vocabulary is looked through, some 0.1 seconds for 50,000 tokens: work
        for a thread, not for an event loop.

        ``closing_message``: what closes a thought by force; the closing marker is added where it is not in it. The
        other arguments are those of :class:`PhaseSettings`. Raises PhaseError.
        """
        chosen = pair or self.pair
        if chosen is None:
            raise PhaseError("markers", "the model has none that are known; name those around its thoughts")
        if len(closing_message) > _LONGEST_MESSAGE:
            raise PhaseError("closing_message", f"has {len(closing_message)} characters; at most {_LONGEST_MESSAGE}")
        message = closing_message
        if message and chosen.closing not in message:
            message += chosen.closing
        return PhaseSettings(
            self._markers(chosen),
            budget=budget,
            total_budget=total_budget,
            minimum=minimum,
            closing=self._ids(message, "closing_message") if message else (),
            start=start,
            markers_anywhere=markers_anywhere,
        )

    def markers(self, pair: MarkerPair | None = None) -> ThoughtMarkers | None:
        """The compiled markers of a pair, or of the model; None where it has none. Raises PhaseError."""
        chosen = pair or self.pair
        return None if chosen is None else self._markers(chosen)

    def ids(self, text: str, field: str) -> tuple[int, ...]:
        """Ids of a text as it stands in the middle of another, without a prefix of beginnings. Raises PhaseError."""
        if len(text) > _LONGEST_MESSAGE:
            raise PhaseError(field, f"has {len(text)} characters; at most {_LONGEST_MESSAGE}")
        return self._ids(text, field)

    def _make_markers(self, pair: MarkerPair) -> ThoughtMarkers:
        for name, text in (("markers.opening", pair.opening), ("markers.closing", pair.closing)):
            if not text.strip() or len(text) > _LONGEST_MARKER:
                raise PhaseError(name, f"must have 1 to {_LONGEST_MARKER} characters that are not all white space")
        if pair.opening == pair.closing:
            raise PhaseError("markers", "what opens a thought cannot close it too")
        if self._bytes is None:
            self._bytes = TokenBytes(self._encoder.backend, self._decoder, self._encoder.markers.ids)
        units = [self._units(text) for text in (pair.opening, pair.closing)]
        runs = {unit for one in units for unit in one if isinstance(unit, bytes)}
        return ThoughtMarkers(
            (self._marker(units[0], "markers.opening"),),
            (self._marker(units[1], "markers.closing"),),
            pieces=self._bytes.parts_of(runs),
            blanks=self._bytes.blanks(),
            partial=self._bytes.partial(),
        )

    def _units(self, text: str) -> list[int | bytes]:
        """Control tokens and the bytes of typed text between them."""
        ids = {content: index for index, content in self._encoder.markers.ids.items()}
        (found,) = self._encoder.markers.find([text])
        units: list[int | bytes] = []
        place = 0
        for start, end, content in found:
            units += [text[place:start].encode(), ids[content]]
            place = end
        units.append(text[place:].encode())
        return [unit for unit in units if unit != b""]

    def _marker(self, units: list[int | bytes], field: str) -> ThoughtMarker:
        assert self._bytes is not None
        if not self._bytes.by_id and any(isinstance(unit, bytes) for unit in units):
            raise PhaseError(field, "is not a control token, and this tokenizer's tokens cannot be read one by one")
        wholes = [ThoughtMarker.of_ids(unit) if isinstance(unit, int) else self._typed(unit, field) for unit in units]
        pattern = tuple(symbol for whole in wholes for symbol in whole.pattern)
        rests = []
        for index, whole in enumerate(wholes):
            behind = tuple(i for one in wholes[index + 1 :] for i in one.token_ids)
            rests += [rest + behind for rest in whole.rests]
        return ThoughtMarker(pattern, tuple(rests))

    def _typed(self, run: bytes, field: str) -> ThoughtMarker:
        return ThoughtMarker(tuple(run), tuple(self._rest(run[place:], field) for place in range(len(run))))

    def _rest(self, data: bytes, field: str) -> tuple[int, ...]:
        """Ids of the end of a marker, which may begin within a character."""
        assert self._bytes is not None
        begun = next((place for place in range(len(data)) if not 0x80 <= data[place] < 0xC0), len(data))
        rest = self._ids(data[begun:].decode(), field) if begun < len(data) else ()
        spelled = self._bytes.spell(data[:begun])
        if spelled is None:
            raise PhaseError(field, "has characters that this tokenizer writes in other tokens than their bytes")
        return spelled + rest

    def _ids(self, text: str, field: str) -> tuple[int, ...]:
        """Ids of a text as it stands in the middle of another; control tokens in it are control tokens."""
        try:
            for anchor in _ANCHORS:
                before = list(self._encoder.encode(anchor, field, any_length=True).ids) if anchor else []
                ids = list(self._encoder.encode(anchor + text, field, any_length=True).ids)
                if ids[: len(before)] == before and self._decoder.decode(ids) == self._decoder.decode(before) + text:
                    return tuple(ids[len(before) :])
        except PromptError as error:
            raise PhaseError(field, error.message) from error
        raise PhaseError(field, f"cannot be written by this tokenizer as it is: {text!r}")


def _detect(template: str, control_tokens: Mapping[int, str]) -> MarkerPair | None:
    """The known markers that both template and tokenizer have, else the tokenizer, else the template."""
    controls = set(control_tokens.values())
    added = [pair for pair in KNOWN_MARKERS if {pair.opening, pair.closing} <= controls]
    named = [pair for pair in KNOWN_MARKERS if pair.opening in template and pair.closing in template]
    both = [pair for pair in added if pair.closing in template]
    return next(iter([*both, *added, *named]), None)
