"""Runs an engine core to the end and gathers what it says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ift_serve.decoding.registry import STRATEGIES
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.core import EngineCore
from ift_serve.engine.core.runner import Runner
from ift_serve.engine.core.strategy import Strategies
from ift_serve.engine.drafting.drafts import Drafts
from ift_serve.engine.protocol.adapter import AdapterInfo, AdapterReply, LoadAdapter, UnloadAdapter
from ift_serve.engine.protocol.generate import CandidateOutput, GenerateRequest, SamplingParams
from ift_serve.engine.protocol.results import FinishReason, RequestFailed, RequestUsage
from ift_serve.engine.protocol.score import ScoreOutput, ScoreRequest
from tests.support.paged_oracle import PagedOracle

_PAUSE = 0.001
_PATIENCE = 60.0
"""Seconds."""


@dataclass
class Answer:
    """Everything one request was told."""

    tokens: dict[int, list[int]] = field(default_factory=dict)
    reasons: dict[int, FinishReason] = field(default_factory=dict)
    finished: bool = False
    usage: RequestUsage | None = None
    score: ScoreOutput | None = None
    failure: RequestFailed | None = None
    outputs: list[CandidateOutput] = field(default_factory=list)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_core(
    runner: Runner,
    strategies: Strategies = STRATEGIES,
    clock: Callable[[], float] = time.monotonic,
    drafts: Drafts | None = None,
    **config: Any,
) -> EngineCore:
    """An engine core with the block size that the runner has."""
    defaults: dict[str, Any] = {"model": "oracle", "max_batch_tokens": 32, "max_sequences": 8}
    return EngineCore(runner, EngineConfig(**(defaults | config)), strategies, clock, drafts=drafts)


def generate(request_id: str, token_ids: list[int], **options: Any) -> GenerateRequest:
    """A request; names of ``SamplingParams`` go there."""
    sampling = {name: options.pop(name) for name in list(options) if name in SamplingParams.__struct_fields__}
    params = SamplingParams(**({"temperature": 0.0, "ignore_eos": True, "max_new_tokens": 8} | sampling))
    return GenerateRequest(request_id=request_id, token_ids=token_ids, sampling=params, **options)


class Driver:
    """Steps a core, checks its integrity after every step, and keeps the answers."""

    def __init__(self, core: EngineCore) -> None:
        self.core = core
        self.answers: dict[str, Answer] = {}
        self.steps = 0
        self._computed, self._waits_since = 0, 0.0
        self.replies: dict[str, AdapterReply | RequestFailed | None] = {}
        self.changes: list[AdapterInfo] = []

    def load(self, name: str, path: str) -> AdapterReply | RequestFailed:
        """Load an adapter and step until the engine says how it went."""
        number = f"load {len(self.replies)}"
        self.replies[number] = None
        ready = threading.Event()
        self.core.on_wake(ready.set)
        self.core.load_adapter(LoadAdapter(request_id=number, name=name, path=path, shown_path=path))
        while (reply := self.replies[number]) is None:
            # What is refused at once is never read.
            assert not self.core.loading or ready.wait(30), "the loader says nothing"
            self.step()
        return reply

    def unload(self, reference: str, drain_seconds: float = 60.0) -> str:
        """Begin to unload; ``replies`` has the answer when it is done."""
        number = f"unload {len(self.replies)}"
        self.replies[number] = None
        self.core.unload_adapter(UnloadAdapter(request_id=number, reference=reference, drain_seconds=drain_seconds))
        return number

    def add(self, *requests: GenerateRequest | ScoreRequest) -> None:
        for request in requests:
            self.answers[request.request_id] = Answer()
            self.core.add(request)

    def step(self) -> bool:
        """One step; False where all work waits for what is done beside the core, such as the reading of a form."""
        said = self.core.step()
        self.steps += 1
        self.core.check_integrity()
        self.changes += said.adapters
        for output in said.outputs:
            if isinstance(output, AdapterReply) or output.request_id in self.replies:
                assert isinstance(output, AdapterReply | RequestFailed)
                self.replies[output.request_id] = output
                continue
            answer = self.answers[output.request_id]
            assert not answer.finished, "something was said after the end"
            if isinstance(output, CandidateOutput):
                self._take(answer, output)
            elif isinstance(output, ScoreOutput):
                answer.score, answer.usage, answer.finished = output, output.usage, True
            else:
                answer.failure, answer.finished = output, True
        waits = self.core.has_work() and said.stats.steps == self._computed and not said.outputs
        self._computed = said.stats.steps
        if not waits:
            self._waits_since = 0.0
        return not (waits and self._pause())

    def _pause(self) -> bool:
        """Give way, as the engine's loop does; what is waited for comes within a minute."""
        now = time.monotonic()
        if not self._waits_since:
            self._waits_since = now
        assert now - self._waits_since < _PATIENCE, "what the work waits for does not come"
        time.sleep(_PAUSE)
        return True

    @staticmethod
    def _take(answer: Answer, output: CandidateOutput) -> None:
        only_ends_request = output.request_finished and not output.token_ids and output.finish_reason is None
        assert output.candidate not in answer.reasons or only_ends_request, "a candidate spoke after its end"
        assert len(output.statistics) == len(output.token_ids)
        answer.outputs.append(output)
        answer.tokens.setdefault(output.candidate, []).extend(output.token_ids)
        if output.finish_reason is not None:
            answer.reasons[output.candidate] = output.finish_reason
        answer.finished = output.request_finished
        answer.usage = output.usage or answer.usage

    def run(self, limit: int = 10_000) -> dict[str, Answer]:
        """Step until there is no work."""
        computed = 0
        while computed < limit:
            if not self.core.has_work():
                return self.answers
            computed += self.step()
        raise AssertionError(f"not done after {limit} steps")


def solo(request: GenerateRequest | ScoreRequest, strategies: Strategies = STRATEGIES, block_size: int = 4) -> Answer:
    """The answer on an engine with nothing else to do, ample memory and no prefix reuse."""
    new = request.continuations if isinstance(request, ScoreRequest) else [[0] * request.sampling.max_new_tokens]
    # Every step checks every block, so there are as many as an answer needs, and more only where that was too few.
    for blocks in (64 + 4 * (len(request.token_ids) + sum(map(len, new))), 4096):
        core = make_core(
            PagedOracle(blocks, block_size), strategies, prefix_caching=False, max_batch_tokens=4096, max_sequences=64
        )
        driver = Driver(core)
        driver.add(request)
        answer = driver.run()[request.request_id]
        if answer.failure is None and not core.stats().preemptions:
            break
    return answer
