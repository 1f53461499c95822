"""A model that says what a test has written, in front of the whole engine core and its checks of blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from transformers import PreTrainedTokenizerFast

from ift_serve.decoding.context import StrategyContext
from ift_serve.decoding.registry import strategies
from ift_serve.engine.protocol.generate import GenerateRequest, TokenStatistics
from ift_serve.engine.protocol.reasoning import Reasoning
from ift_serve.engine.sequences.step import SampledToken, SamplingRow, SequenceStep
from ift_serve.text.phases import PhaseBuilder
from ift_serve.text.prompt import PromptRenderer
from tests.support.engine_driver import Driver, generate, make_core
from tests.support.paged_oracle import PagedOracle
from tests.support.tiny_tokenizers import byte_level

PROMPT = "user Sort these words: pear apple fig"


@dataclass(frozen=True)
class Next:
    """What a text goes on with: possible rests, most likely first, of which the first is drawn; "" is its end.

    ``token_id``: the token that is drawn, where texts cannot say it.
    """

    rests: list[str]
    p1: float = 0.75
    p2: float = 0.25
    entropy: float = 0.5
    confidence: float = 8.0
    log_prob: float = -0.25
    token_id: int | None = None


Script = Callable[[str, SamplingRow], Next]


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, with markers of thoughts."""
    backend = byte_level()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


@cache
def context() -> StrategyContext:
    """What strategies know of the scripted model."""
    renderer = PromptRenderer(tokenizer())
    end = tokenizer().eos_token_id
    special = frozenset(renderer.encoder.markers.ids)
    return StrategyContext(renderer, PhaseBuilder.of(renderer), special, frozenset([end]))


def ids_of(text: str) -> list[int]:
    ids: list[int] = tokenizer().backend_tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def text_of(ids: list[int]) -> str:
    text: str = tokenizer().backend_tokenizer.decode(ids, skip_special_tokens=False)
    return text


class ScriptedModel(PagedOracle):
    """Checks what it is given as the oracle does, and says what ``script`` says."""

    def __init__(self, script: Script, total_blocks: int = 256, **options: Any) -> None:
        super().__init__(total_blocks, **options)
        self._script = script
        self._end = tokenizer().eos_token_id
        size = len(tokenizer())
        self.description = msgspec.structs.replace(self.description, vocabulary_size=size, eos_ids=[self._end])

    def _sample(self, step: SequenceStep, row: SamplingRow, total: int) -> SampledToken:
        super()._sample(step, row, total)
        said = self._script(text_of(row.history[row.prompt_length :]), row)
        tokens = list(dict.fromkeys(ids_of(rest)[0] if rest else self._end for rest in said.rests))
        if said.token_id is not None:
            tokens.insert(0, said.token_id)
        statistics = TokenStatistics(said.log_prob, said.p1, said.p2, said.entropy, -said.confidence, row.temperature)
        top = [(token, said.log_prob - place) for place, token in enumerate(tokens)]
        return SampledToken(_first_allowed(tokens, row), statistics, top[: row.params.top_logprobs])


def _first_allowed(tokens: list[int], row: SamplingRow) -> int:
    """The most likely token that the row's mask lets stay."""
    if row.mask is None:
        return tokens[0]
    words = row.mask.words()
    others = range(len(tokenizer()))
    allowed: Iterator[int] = (token for token in (*tokens, *others) if words[token // 32] >> token % 32 & 1)
    return next(allowed)


def write(texts: list[str], **statistics: Any) -> Script:
    """A script that writes one of several texts to its end: of those that begin as what is there, the first."""

    def script(text: str, row: SamplingRow) -> Next:
        rests = [whole[len(text) :] for whole in texts if whole.startswith(text)]
        return Next(rests or [""], **statistics)

    return script


def driver_of(script: Script, blocks: int = 256, rows: int = 8, clock: Any = None, **config: Any) -> Driver:
    """An engine around a scripted model, with all strategies."""
    model = ScriptedModel(script, blocks)
    core = make_core(model, strategies(context()), *([clock] if clock else []), max_sequences=rows, **config)
    return Driver(core)


def reasoned(settings: Reasoning, request_id: str = "a", **options: Any) -> GenerateRequest:
    """A request that is reasoned about."""
    defaults = {"ignore_eos": False, "max_new_tokens": 64, "temperature": 0.0}
    strategy = str(settings.__struct_config__.tag)
    return generate(request_id, ids_of(PROMPT), strategy=strategy, reasoning=settings, **(defaults | options))


def unused_blocks(driver: Driver) -> int:
    """Blocks that no sequence holds."""
    stats = driver.core.stats()
    return stats.free_blocks + stats.cached_blocks
