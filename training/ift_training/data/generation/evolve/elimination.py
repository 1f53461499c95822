"""What an evolution is dropped for (Xu et al. 2023, section 3.2), and a few mistakes that programs see."""

from __future__ import annotations

import re

from ift_serve.checks.words import listed
from ift_training.data.generation.record import Reason
from ift_training.data.generation.rouge import rouge_l, words
from ift_training.data.generation.settings import EliminationSettings

_COPIED = ("given task", "task below", "rewritten task", "new task", "rewrite the task", "added:")
"""Words of the prompts that do not belong into a task or an answer."""
_STOP_WORDS = frozenset(
    listed(
        "a an and are as at be but by for from had has have he her his i if in is it its me my no not of on or our she "
        "so that the their them then there they this to up us was we were what when which who will with you your"
    )
)
_WORD = re.compile(r"[^\W_]+")


def bad_task(asked: str, parent: str, settings: EliminationSettings) -> Reason | None:
    """Why a new task is dropped before it is answered; ``asked`` and ``parent`` with their inputs."""
    length = len(asked.split())
    if length > settings.longest:
        return Reason("long", f"{length} words", length, settings.longest)
    if (found := _copied(asked)) is not None:
        return Reason("copied", f"has the prompt's words {found!r}")
    score = rouge_l(words(asked), words(parent))
    if asked.split() == parent.split() or (score > settings.similarity and length <= len(parent.split())):
        return Reason("same", "says nothing new", score, settings.similarity)
    return None


def bad_answer(answer: str, settings: EliminationSettings) -> Reason | None:
    """Why an answer shows that the task cannot be answered."""
    length = len(answer.split())
    if "sorry" in answer.lower() and length < settings.short_words:
        return Reason("confused", f"says sorry in {length} words", length, settings.short_words)
    said = {word.lower() for word in _WORD.findall(answer)}
    if not said - _STOP_WORDS:
        return Reason("empty", "is punctuation and words without content" if answer.strip() else "is empty")
    if (found := _copied(answer)) is not None:
        return Reason("copied", f"has the prompt's words {found!r}")
    return None


def _copied(text: str) -> str | None:
    lowered = text.lower()
    return next((words_ for words_ in _COPIED if words_ in lowered), None)
