"""Decides what each step drafts: as many tokens as make it likely that more are drawn a second."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass, field

from ift_serve.engine.drafting.acceptance import MODEL, AcceptanceRates, kind_of
from ift_serve.engine.drafting.guessing_model import GuessingModel
from ift_serve.engine.drafting.model_guesses import ModelGuesses
from ift_serve.engine.drafting.prompt_lookup import PromptLookup
from ift_serve.engine.drafting.step_costs import StepCosts
from ift_serve.engine.sequences.sequence import Sequence

LONGEST_DRAFT = 15
MOST_SEQUENCES = 4
"""Sequences of a step, past which a row more costs what it brings: drafts of several callers make ever other kinds of
steps, most of which come too seldom to be run from a record. Measured on two cores."""
_MARGIN = 1.02
"""By how much a step with drafts must be better by what is known: that is not exact."""
_LEAST_CHANCE = 0.02


@dataclass(slots=True)
class Guess:
    """Tokens that may follow the first ``length`` ones of a sequence, and the kind of their acceptance."""

    length: int
    tokens: list[int]
    kind: int


@dataclass(slots=True)
class SequenceDrafts:
    """What the planner keeps of one sequence."""

    rates: AcceptanceRates
    lookup: PromptLookup = field(default_factory=PromptLookup)
    guess: Guess | None = None

    def settle(self, tokens: list[int]) -> None:
        """See what came true of the last guess, whether it was drafted or not."""
        guess, self.guess = self.guess, None
        if guess is None:
            return
        drawn = tokens[guess.length : guess.length + len(guess.tokens)]
        came_true = 0
        while came_true < len(drawn) and drawn[came_true] == guess.tokens[came_true]:
            came_true += 1
        self.rates.note(guess.kind, came_true, came_true < len(drawn))

    def look(self, tokens: list[int], count: int) -> Guess | None:
        """Guess up to ``count`` of the next tokens; None where nothing in the text is alike."""
        guessed, alike = self.lookup.guess(tokens, count)
        if guessed:
            self.guess = Guess(len(tokens), guessed, kind_of(alike))
        return self.guess

    def take(self, tokens: list[int], guessed: list[int]) -> Guess:
        """Take what a model has guessed in place of that."""
        self.guess = Guess(len(tokens), guessed, MODEL)
        return self.guess


class DraftPlanner:
    """Guesses for the sequences that decode, and how many tokens of each are worth their rows.

    Guesses come from the text so far; they cost nothing, and are compared with what is drawn even where they are not
    drafted, so the rates are known before a row is spent.
    """

    def __init__(
        self,
        model: GuessingModel | None = None,
        measured: Listing[float] = (),
        most_sequences: int = MOST_SEQUENCES,
    ) -> None:
        """model: what is asked beside the text. measured: seconds of steps of 1, 2 ... rows, where they are known.
        most_sequences: nothing is guessed where a step has more.
        """
        self._most = most_sequences
        self._rates = AcceptanceRates()
        self._costs = StepCosts(measured)
        self._model = None if model is None else ModelGuesses(model, self._costs)
        self._rows = self._sequences = 0

    def plan(self, sequences: Listing[Sequence], room: int, longest: Listing[int]) -> list[list[int]]:
        """See :class:`ift_serve.engine.drafting.drafts.Drafts`."""
        self._rows = self._sequences = len(sequences)
        if len(sequences) > self._most:
            return [[] for _ in sequences]
        guesses: list[Guess | None] = [None] * len(sequences)
        for place, sequence in enumerate(sequences):
            if longest[place]:
                guesses[place] = self._known_of(sequence).look(sequence.tokens, min(LONGEST_DRAFT, longest[place]))
        lengths = self._worth(sequences, guesses, room)
        if self._model is not None:
            self._ask(self._model, sequences, guesses, lengths, longest)
            lengths = self._worth(sequences, guesses, room)
        self._rows += sum(lengths)
        return [[] if g is None else g.tokens[:n] for g, n in zip(guesses, lengths, strict=True)]

    def note(self, seconds: float) -> None:
        """See :class:`ift_serve.engine.drafting.drafts.Drafts`."""
        if self._rows:
            self._costs.note(self._rows, seconds, self._sequences)
            self._rows = 0

    def _known_of(self, sequence: Sequence) -> SequenceDrafts:
        """What is known of a sequence, with its last guess settled."""
        known = sequence.drafts
        if not isinstance(known, SequenceDrafts):
            known = sequence.drafts = SequenceDrafts(AcceptanceRates(self._rates))
        known.settle(sequence.tokens)
        return known

    def _ask(
        self,
        model: ModelGuesses,
        sequences: Listing[Sequence],
        guesses: list[Guess | None],
        lengths: list[int],
        longest: Listing[int],
    ) -> None:
        """Have the model guess for the sequences whose text says nothing that is worth its rows."""
        asked = [place for place, count in enumerate(lengths) if not count and longest[place]]
        if not asked:
            return
        rates = [_rates_of(sequences[place]).rate(MODEL) for place in asked]
        rows = len(sequences) + sum(lengths)
        count = model.length(rates, rows, len(sequences) / self._costs.seconds(len(sequences), len(sequences)))
        if not count:
            return
        for place, tokens in zip(asked, model.guess([sequences[place] for place in asked], count), strict=True):
            if tokens:
                guesses[place] = _known(sequences[place]).take(sequences[place].tokens, tokens[: longest[place]])

    def _worth(self, sequences: Listing[Sequence], guesses: list[Guess | None], room: int) -> list[int]:
        """How many tokens to draft of each guess: those that, together, make most tokens a second."""
        lengths = [0] * len(sequences)
        chances: list[tuple[float, int]] = []
        for place, guess in enumerate(guesses):
            if guess is not None:
                chances += _chances(_rates_of(sequences[place]).rate(guess.kind), len(guess.tokens), place)
        if not chances:
            return lengths
        chances.sort(reverse=True)
        rows = len(sequences)
        best, count = _MARGIN * rows / self._costs.seconds(rows, rows), 0
        expected = float(rows)
        for number, (chance, _) in enumerate(chances[:room], 1):
            expected += chance
            pace = expected / self._costs.seconds(rows + number, rows)
            if pace > best:
                best, count = pace, number
        for _, place in chances[:count]:
            lengths[place] += 1
        return lengths


def _known(sequence: Sequence) -> SequenceDrafts:
    assert isinstance(sequence.drafts, SequenceDrafts)
    return sequence.drafts


def _rates_of(sequence: Sequence) -> AcceptanceRates:
    return _known(sequence).rates


def _chances(rate: float, count: int, place: int) -> list[tuple[float, int]]:
    """That the first, the second ... token of a guess is drawn."""
    found = []
    chance = 1.0
    for _ in range(count):
        chance *= rate
        if chance < _LEAST_CHANCE:
            break
        found.append((chance, place))
    return found
