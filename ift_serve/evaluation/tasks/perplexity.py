"""Perplexity of a text file: how well a model predicts it, nothing being asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ift_serve.client import Prompt
from ift_serve.evaluation.errors import EvaluationError
from ift_serve.evaluation.serving.decoding_settings import DecodingSettings
from ift_serve.evaluation.serving.requests import Request, WholeText
from ift_serve.evaluation.tasks.task import Item, Task, Verdicts

_PART = 8192
"""Characters of a part at most, unless one paragraph has more. Each part is scored from its beginning."""


class Perplexity(Task):
    """A text in parts that end where paragraphs do. Nothing is judged; the score is in nats and bytes."""

    name = "perplexity"
    columns = ()

    def __init__(self, data: Path) -> None:
        try:
            text = data.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EvaluationError(f"{data}: cannot be read: {error}") from None
        if not text.strip():
            raise EvaluationError(f"{data}: holds no text")
        self._items = [Item(str(n), Prompt.from_text(part), part, (), part) for n, part in enumerate(parts(text))]

    def items(self) -> Sequence[Item]:
        return self._items

    def request(self, item: Item, settings: DecodingSettings, seed: int, repeat: int) -> Request:
        return WholeText(item.source, settings.adapter)

    def judge(self, item: Item, response: str) -> Verdicts:
        return {}


def parts(text: str) -> Iterator[str]:
    """Pieces of a text that give it when joined."""
    piece = ""
    for paragraph in text.split("\n\n"):
        if piece and len(piece) + len(paragraph) > _PART:
            yield piece
            piece = ""
        piece += paragraph + "\n\n"
    rest = piece.removesuffix("\n\n")
    if rest:
        yield rest
