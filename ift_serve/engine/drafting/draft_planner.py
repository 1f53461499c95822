"""Decides what each step drafts: as many tokens as make it likely that more are drawn a second."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass, field

from ift_serve.engine.drafting.acceptance import AcceptanceRates, kind_of
from ift_serve.engine.drafting.prompt_lookup import PromptLookup
from ift_serve.engine.drafting.step_costs import StepCosts
from ift_serve.engine.sequences.sequence import Sequence

LONGEST_DRAFT = 15
MOST_SEQUENCES = 16
"""Sequences of a step, past which rows are worth what they cost without drafts, and looking for guesses is not."""
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


class DraftPlanner:
    """Guesses for the sequences that decode, and how many tokens of each are worth their rows.

    A guess is compared with what is drawn even where it is not drafted, so the rates are known before a row is spent.
    """

    def __init__(self) -> None:
        self._rates = AcceptanceRates()
        self._costs = StepCosts()
        self._rows = 0

    def plan(self, sequences: Listing[Sequence], room: int, longest: Listing[int]) -> list[list[int]]:
        """See :class:`ift_serve.engine.drafting.drafts.Drafts`."""
        self._rows = len(sequences)
        drafts: list[list[int]] = [[] for _ in sequences]
        if len(sequences) > MOST_SEQUENCES:
            return drafts
        chances: list[tuple[float, int]] = []
        for place, sequence in enumerate(sequences):
            if not longest[place]:
                continue
            known = sequence.drafts
            if not isinstance(known, SequenceDrafts):
                known = sequence.drafts = SequenceDrafts(AcceptanceRates(self._rates))
            known.settle(sequence.tokens)
            guess = known.look(sequence.tokens, min(LONGEST_DRAFT, longest[place]))
            if guess is None:
                continue
            drafts[place] = guess.tokens
            chances += _chances(known.rates.rate(guess.kind), len(guess.tokens), place)
        lengths = self._worth(chances, len(sequences), room) if chances else {}
        self._rows += sum(lengths.values())
        return [tokens[: lengths.get(place, 0)] for place, tokens in enumerate(drafts)]

    def note(self, seconds: float) -> None:
        """See :class:`ift_serve.engine.drafting.drafts.Drafts`."""
        if self._rows:
            self._costs.note(self._rows, seconds)
            self._rows = 0

    def _worth(self, chances: list[tuple[float, int]], rows: int, room: int) -> dict[int, int]:
        """How many tokens to draft at each place: those that, together, make most tokens a second."""
        chances.sort(reverse=True)
        best, count = _MARGIN * rows / self._costs.seconds(rows), 0
        expected = float(rows)
        for number, (chance, _) in enumerate(chances[:room], 1):
            expected += chance
            pace = expected / self._costs.seconds(rows + number)
            if pace > best:
                best, count = pace, number
        lengths: dict[int, int] = {}
        for _, place in chances[:count]:
            lengths[place] = lengths.get(place, 0) + 1
        return lengths


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
