"""A judgement: pairs of saved answers, each asked about in both orders, and what came of it."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ift_serve.evaluation.comparison import mcnemar
from ift_serve.evaluation.judging.judge import Judge, JudgeError
from ift_serve.evaluation.judging.questions import Choice, Criterion, Pair, question, read_choice, unswapped
from ift_serve.evaluation.rows import Row
from ift_serve.evaluation.scores import wilson

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Judgement:
    """One pair by one criterion. ``forward``, ``backward``: the choice in each order, in terms of the models; None
    where the reply says none (``errors`` has why). ``outcome``: theirs if both agree, else a tie."""

    task: str
    key: str
    repeat: int
    criterion: Criterion
    forward: Choice | None
    backward: Choice | None
    again: Choice | None
    replies: Sequence[str]
    errors: Sequence[str] = ()

    @property
    def is_complete(self) -> bool:
        """Whether both orders were answered."""
        return self.forward is not None and self.backward is not None

    @property
    def agrees(self) -> bool:
        """Whether the order made no difference."""
        return self.is_complete and self.forward == self.backward

    @property
    def outcome(self) -> Choice | None:
        """A judge that contradicts itself has said nothing in favour of either."""
        if not self.is_complete:
            return None
        return self.forward if self.agrees else "tie"


def pairs_of(rows: Sequence[Row], first: str, second: str, limit: int | None = None, seed: int = 0) -> list[Pair]:
    """Prompts that both models answered, with something to judge. ``limit``: so many of each task, drawn by seed."""
    own = {model: {(r.task, r.key, r.repeat): r for r in rows if r.model == model} for model in (first, second)}
    by_task: dict[str, list[Pair]] = {}
    for place, row in own[first].items():
        other = own[second].get(place)
        if other is None or row.error or other.error or row.log_prob is not None:
            continue
        by_task.setdefault(row.task, []).append(Pair(*place, row, other))
    found = []
    for task, pairs in by_task.items():
        if limit is not None and limit < len(pairs):
            chosen = sorted(random.Random(f"{seed}/{task}").sample(range(len(pairs)), limit))
            pairs = [pairs[index] for index in chosen]
        found += pairs
    return found


async def judge_pairs(
    judge: Judge,
    pairs: Sequence[Pair],
    *,
    seed: int = 0,
    concurrency: int = 8,
    shown: Callable[[int, int], None] = lambda done, total: None,
) -> list[Judgement]:
    """Ask everything; a reply that is missing is counted apart. Raises EvaluationError where none will ever come.

    Each question is asked in both orders, and in the first order once more with another seed: how often the judge
    agrees with itself is told for both.
    """
    asked = [(pair, criterion) for pair in pairs for criterion in pair.criteria]
    found: dict[int, Judgement] = {}
    numbered = enumerate(asked)

    async def work() -> None:
        for index, (pair, criterion) in _shared(numbered):
            found[index] = await _judged(judge, pair, criterion, seed)
            shown(len(found), len(asked))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [found[index] for index in range(len(asked))]


async def _judged(judge: Judge, pair: Pair, criterion: Criterion, seed: int) -> Judgement:
    choices: list[Choice | None] = []
    replies, errors = [], []
    for swapped, number in ((False, seed), (True, seed), (False, seed + 1)):
        try:
            reply = await judge.reply(question(pair, criterion, swapped=swapped), number)
        except JudgeError as error:
            choices.append(None)
            errors.append(str(error))
            continue
        replies.append(reply)
        choice = read_choice(reply)
        if choice is None:
            errors.append("the reply has none of [[A]], [[B]] and [[TIE]]")
        choices.append(None if choice is None else unswapped(choice, swapped=swapped))
    forward, backward, again = choices
    return Judgement(pair.task, pair.key, pair.repeat, criterion, forward, backward, again, replies, errors)


def report_of(judge: str, first: str, second: str, judgements: Sequence[Judgement]) -> dict[str, Any]:
    """The report of a judgement, a document of its own: none of it is in a verifiable score."""
    groups: dict[tuple[str, Criterion], list[Judgement]] = {}
    for found in judgements:
        groups.setdefault((found.task, found.criterion), []).append(found)
    return {
        "format": FORMAT,
        "kind": "judgement",
        "judge": judge,
        "first": first,
        "second": second,
        "scores": [_score(task, criterion, own) for (task, criterion), own in groups.items()],
        "judgements": [dataclasses.asdict(found) | {"outcome": found.outcome} for found in judgements],
    }


def _score(task: str, criterion: Criterion, own: Sequence[Judgement]) -> Mapping[str, Any]:
    """Wins, ties and losses of the second model, and how far the judge can be trusted.

    ``win_rate``: wins and half of the ties of the second model, with Wilson's 95 % interval over prompts.
    ``order_agreement``: share of pairs on which both orders agree; ``self_agreement``: share of questions that were
    answered alike when asked again; ``first_shown``: share of decided replies for what was shown first, 0.5 without
    bias.
    """
    complete = [found for found in own if found.is_complete]
    outcomes = [found.outcome for found in complete]
    won, lost, ties = (outcomes.count(choice) for choice in ("second", "first", "tie"))
    rate = (won + ties / 2) / len(complete) if complete else 0.0
    low, high = wilson(rate, len({found.key for found in complete}))
    again = [found for found in own if found.forward is not None and found.again is not None]
    shown_first = [found.forward == "first" for found in complete if found.forward != "tie"]
    shown_first += [found.backward == "second" for found in complete if found.backward != "tie"]
    return {
        "task": task, "criterion": criterion, "pairs": len(own), "judged": len(complete),
        "won": won, "lost": lost, "ties": ties, "win_rate": rate, "low": low, "high": high,
        "p_value": mcnemar(won, lost),
        "order_agreement": _mean([found.agrees for found in complete]),
        "self_agreement": _mean([found.forward == found.again for found in again]),
        "first_shown": _mean(shown_first),
    }  # fmt: skip


def _mean(found: Sequence[bool]) -> float | None:
    return sum(found) / len(found) if found else None


def _shared(numbered: Iterator[tuple[int, tuple[Pair, Criterion]]]) -> Iterator[tuple[int, tuple[Pair, Criterion]]]:
    """What is left of an iterator that several tasks take from."""
    yield from numbered
