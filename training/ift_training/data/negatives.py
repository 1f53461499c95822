"""Counts the records that no wrong answer fits behind, before anything is trained on them."""

from __future__ import annotations

from array import array

from ift_training.data.encode import EncodedExample
from ift_training.data.report import SourceReport


class NegativeCounter:
    """Finds the records of several sources whose prompts leave no room for an answer of any other of them.

    The instruction loss contrasts a right answer with a wrong one to the same prompt; an answer that would have to be
    cut is not used. Held of each record without an answer of its own that breaks it: 16 bytes.
    """

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length
        self._shortest: list[list[int]] = []
        self._sizes: dict[str, tuple[SourceReport, array[int], array[int]]] = {}

    def add(self, report: SourceReport, example: EncodedExample) -> None:
        """Count an example of a source that is trained on."""
        answer = example.input_ids[example.response_start :]
        if answer not in self._shortest:
            self._shortest = sorted([*self._shortest, answer], key=len)[:2]
        if example.violating is None:
            _, prompts, answers = self._sizes.setdefault(report.path, (report, array("Q"), array("Q")))
            prompts.append(example.response_start)
            answers.append(len(answer))

    def finish(self) -> None:
        """Write the numbers into the sources' reports."""
        least, other = ([len(answer) for answer in self._shortest] + [0, 0])[:2]
        for report, prompts, answers in self._sizes.values():
            for prompt, own in zip(prompts, answers, strict=True):
                # The shortest answer's own record is the only one of that length, unless the next is as short.
                needed = prompt + (other if own == least else least)
                if not other or needed > self._max_length:
                    report.unpaired += 1
                    report.length_to_pair = max(report.length_to_pair, needed if other else 0)
