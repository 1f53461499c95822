"""The tokens whose logits a row's penalties and biases change, kept up while its answer grows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ift_serve.engine.protocol.generate import SamplingParams

_PROMPT_ONLY, _BIASED_ONLY = 0, -1


class AdjustedTokens:
    """Ids ``[E]`` int32, times generated ``[E]`` int32 (0: prompt only, -1: biased only) and biases ``[E]`` float32.

    A step costs what its new tokens cost, however long the history is.
    """

    def __init__(self, params: SamplingParams, prompt: list[int]) -> None:
        self._penalised = has_penalties(params)
        biases = params.logit_bias
        seen = dict.fromkeys(prompt, _PROMPT_ONLY) if self._penalised else {}
        for token in biases:
            seen.setdefault(token, _BIASED_ONLY)
        self._place = {token: place for place, token in enumerate(seen)}
        self._length = len(seen)
        self._read = len(prompt)
        self._ids = np.fromiter(seen, np.int32, len(seen))
        self._generated = np.fromiter(seen.values(), np.int32, len(seen))
        self._bias = np.fromiter((biases.get(token, 0.0) for token in seen), np.float32, len(seen))

    def entries(
        self, history: list[int], drafted: tuple[int, ...] = ()
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
        """Up to the end of ``history``, the prompt and what was generated since, as if it ended with ``drafted``.

        Views that the next call changes, copies where tokens are drafted.
        """
        if self._penalised:
            for token in history[self._read :]:
                self._count(token)
            self._read = len(history)
        end = self._length
        known = self._ids[:end], self._generated[:end], self._bias[:end]
        return self._with(known, drafted) if self._penalised and drafted else known

    def _with(
        self, known: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]], drafted: tuple[int, ...]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
        ids, bias = known[0], known[2]
        new = [token for token in dict.fromkeys(drafted) if token not in self._place]
        generated = np.concatenate((known[1], np.zeros(len(new), np.int32)))
        places = {token: place for place, token in enumerate(new, len(ids))}
        for token in drafted:
            place = self._place.get(token, places.get(token, 0))
            generated[place] = max(generated[place], 0) + 1
        if new:
            ids = np.concatenate((ids, np.array(new, np.int32)))
            bias = np.concatenate((bias, np.zeros(len(new), np.float32)))
        return ids, generated, bias

    def _count(self, token: int) -> None:
        place = self._place.get(token)
        if place is None:
            place = self._place[token] = self._length
            if place == len(self._ids):
                self._grow()
            self._ids[place], self._generated[place], self._bias[place] = token, 0, 0.0
            self._length += 1
        self._generated[place] = max(self._generated[place], 0) + 1

    def _grow(self) -> None:
        room = len(self._ids) // 2 + 64
        self._ids, self._generated = (np.pad(array, (0, room)) for array in (self._ids, self._generated))
        self._bias = np.pad(self._bias, (0, room))


def has_penalties(params: SamplingParams) -> bool:
    """Whether what stands in the history changes logits."""
    return params.repetition_penalty != 1.0 or params.presence_penalty != 0.0 or params.frequency_penalty != 0.0


def is_adjusted(params: SamplingParams) -> bool:
    """Whether any token's logit is changed."""
    return bool(params.logit_bias) or has_penalties(params)
