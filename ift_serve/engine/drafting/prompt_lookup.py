"""Guesses the next tokens of a sequence from its own text: what followed the last time that it said the same.

Prompt lookup decoding (Saxena 2023; Yang et al. 2023, arXiv:2304.04487): answers that rewrite, extract or edit copy
whole stretches of their prompt.
"""

from __future__ import annotations

SHORTEST, LONGEST = 2, 16
"""Tokens that must be alike for a guess, and as many as are compared."""
_REMEMBERED = 6
"""Places of a pair of tokens, the latest ones."""


class PromptLookup:
    """Of one sequence: where each pair of its tokens stands. A new token costs one entry."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, int], list[int]] = {}
        self._read = 1

    def guess(self, tokens: list[int], count: int) -> tuple[list[int], int]:
        """Up to ``count`` tokens that may follow ``tokens``, and how many before them are alike (0: no guess).

        Of the places that are alike for longest the latest counts. A stretch that reaches the end of the text is
        taken to repeat itself.
        """
        end = len(tokens)
        self._index(tokens)
        places = self._places.get((tokens[-2], tokens[-1])) if end > SHORTEST else None
        if not places:
            return [], 0
        best, longest = 0, 0
        for place in reversed(places):
            alike = _alike(tokens, place)
            if alike > longest:
                best, longest = place, alike
                if longest == LONGEST:
                    break
        guessed = tokens[best : best + count]
        while len(guessed) < count:
            guessed += guessed[-(end - best) :][: count - len(guessed)]
        return guessed, longest

    def _index(self, tokens: list[int]) -> None:
        """Note every pair but the last, which nothing follows yet."""
        places = self._places
        for place in range(self._read, len(tokens) - 1):
            known = places.setdefault((tokens[place - 1], tokens[place]), [])
            if len(known) == _REMEMBERED:
                del known[0]
            known.append(place + 1)
        self._read = max(self._read, len(tokens) - 1)


def _alike(tokens: list[int], place: int) -> int:
    """How many tokens before ``place`` are those before the end, at most ``LONGEST``."""
    end = len(tokens)
    alike = SHORTEST
    while alike < LONGEST and place > alike and tokens[place - 1 - alike] == tokens[end - 1 - alike]:
        alike += 1
    return alike
