"""What short answers of a model mean."""

from __future__ import annotations

import re

from ift_serve.evaluation.serving.outcomes import Answer

_FIRST_WORD = re.compile(r"\W*([a-z]+)")


def yes_or_no(answer: Answer | None) -> bool | None:
    """What an answer begins with; None where that is neither, or where there is no answer."""
    found = None if answer is None else _FIRST_WORD.match(answer.text.lower())
    return {"yes": True, "no": False}.get(found[1]) if found else None
