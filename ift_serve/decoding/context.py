"""Strategy context: the model's tokenizer, its markers, where its text ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ift_serve.engine.protocol.generate import GenerateRequest
from ift_serve.text.message import PromptError
from ift_serve.text.phases import PhaseBuilder
from ift_serve.text.prompt import PromptRenderer
from ift_serve.text.token_texts import TokenDecoder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StrategyContext:
    """One model's; shared by all requests, safe to use from several threads.

    ``renderer``: None where the model has no tokenizer that tells tokens' texts; what needs text is refused then.
    ``special_ids``: tokens that are no text. ``end_ids``: those that end an answer. ``classify``: which of "none",
    "trace" and "branch" a request asks for, None where nothing tells.
    """

    renderer: PromptRenderer | None
    phases: PhaseBuilder | None
    special_ids: frozenset[int] = frozenset()
    end_ids: frozenset[int] = frozenset()
    classify: Callable[[GenerateRequest], str] | None = None

    @classmethod
    def of_model(cls, path: str, end_ids: list[int], chat_template: str | None = None) -> StrategyContext:
        """For the model in a directory, or of a hub id; ``chat_template``: the name of one of several."""
        return cls.of_renderer(read_renderer(path, chat_template), end_ids)

    @classmethod
    def of_renderer(cls, renderer: PromptRenderer | None, end_ids: list[int]) -> StrategyContext:
        """For the model whose tokenizer was read; None: it has none."""
        if renderer is None:
            return cls(None, None, frozenset(end_ids), frozenset(end_ids))
        special = frozenset(renderer.encoder.markers.ids) | frozenset(end_ids)
        return cls(renderer, PhaseBuilder.of(renderer), special, frozenset(end_ids))

    @property
    def decoder(self) -> TokenDecoder | None:
        """Turns tokens into text."""
        return None if self.renderer is None else self.renderer.decoder


def read_renderer(path: str, chat_template: str | None = None) -> PromptRenderer | None:
    """The tokenizer of a model and what renders its prompts; None where it has none that tells tokens' texts."""
    try:
        return PromptRenderer.from_pretrained(path, chat_template=chat_template)
    except PromptError as error:
        _log.info("strategies that read text are not served: %s", error)
        return None
