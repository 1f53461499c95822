"""Requests in flight in the server process: what the engine says is kept per call until its consumer takes it.

Outputs of one candidate are joined while the consumer is busy, so a slow one costs the memory of its
answer and nothing else.
"""

from __future__ import annotations

import asyncio

import msgspec

from ift_serve.engine.protocol.adapter import AdapterReply
from ift_serve.engine.protocol.generate import CandidateOutput
from ift_serve.engine.protocol.results import FailureKind, RequestFailed
from ift_serve.engine.protocol.score import ScoreOutput
from ift_serve.engine.protocol.wire import StepOutputs
from ift_serve.frontend.errors import EngineError


class Call:
    """The answer to one request, as far as it is known and not taken yet."""

    def __init__(self, request_id: str, candidates: int) -> None:
        self.request_id = request_id
        self.finished = False
        """Whether the engine has nothing more to say, or nothing that anyone waits for."""
        self._open = set(range(candidates))
        self._stopped: set[int] = set()
        self._pending: dict[int, CandidateOutput] = {}
        self._reply: ScoreOutput | AdapterReply | None = None
        self._error: EngineError | None = None
        self._arrived = asyncio.Event()

    def deliver(self, output: CandidateOutput | ScoreOutput | AdapterReply | RequestFailed) -> None:
        """Keep what the engine said until it is taken."""
        if isinstance(output, CandidateOutput):
            self._keep(output)
        elif isinstance(output, ScoreOutput | AdapterReply):
            self._reply = output
            self.finished = True
        else:
            self.fail(EngineError.of(output))
        self._arrived.set()

    def _keep(self, output: CandidateOutput) -> None:
        candidate = output.candidate
        self.finished = self.finished or output.request_finished
        if output.finish_reason is not None:
            self._open.discard(candidate)
        if candidate in self._stopped:
            return
        earlier = self._pending.pop(candidate, None)
        self._pending[candidate] = output if earlier is None else _joined(earlier, output)

    def fail(self, error: EngineError) -> None:
        """End the call; raised where it is awaited, after what was said before."""
        if not self.finished:
            self._error = error
            self.finished = True
        self._arrived.set()

    def stop(self, candidate: int) -> None:
        """Nothing of this candidate is wanted any more."""
        self._stopped.add(candidate)
        self._pending.pop(candidate, None)
        self._open.discard(candidate)
        if not self._open:
            self.finished = True
            self._arrived.set()

    def is_stopped(self, candidate: int) -> bool:
        """Whether ``stop`` was called for the candidate."""
        return candidate in self._stopped

    async def outputs(self) -> list[CandidateOutput]:
        """What has come since the last time, waiting for it; empty at the end. Raises ``EngineError``."""
        while not self._pending:
            if self._error is not None:
                raise self._error.fresh()
            if self.finished:
                return []
            self._arrived.clear()
            await self._arrived.wait()
        taken = list(self._pending.values())
        self._pending.clear()
        return taken

    async def reply(self) -> ScoreOutput | AdapterReply:
        """The answer to a request that has just one. Raises ``EngineError``."""
        while self._reply is None:
            if self._error is not None:
                raise self._error.fresh()
            self._arrived.clear()
            await self._arrived.wait()
        return self._reply


def _joined(first: CandidateOutput, second: CandidateOutput) -> CandidateOutput:
    """Two outputs of one candidate as one. Takes over the lists of ``first``."""
    first.token_ids.extend(second.token_ids)
    first.statistics.extend(second.statistics)
    first.top_log_probs.extend(second.top_log_probs)
    return msgspec.structs.replace(
        second,
        token_ids=first.token_ids,
        statistics=first.statistics,
        top_log_probs=first.top_log_probs,
        usage=second.usage or first.usage,
        conclusion=second.conclusion or first.conclusion,
        timeline=second.timeline or first.timeline,
    )


class PendingRequests:
    """All calls in flight, by request id."""

    def __init__(self) -> None:
        self._pending: dict[str, Call] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def open(self, request_id: str, candidates: int) -> Call:
        """A new call. Raises ``EngineError`` when the id is in use."""
        if request_id in self._pending:
            raise EngineError(FailureKind.INVALID, "request_id: already in use", "request_id")
        call = self._pending[request_id] = Call(request_id, candidates)
        return call

    def get(self, request_id: str) -> Call | None:
        """The call in flight with this id."""
        return self._pending.get(request_id)

    def close(self, call: Call) -> None:
        """Nobody waits for the call any more."""
        self._pending.pop(call.request_id, None)

    def deliver(self, said: StepOutputs) -> None:
        """Hand a step's outputs to their calls; those of calls that are gone are dropped."""
        calls = self._pending
        for output in said.outputs:
            call = calls.get(output.request_id)
            if call is not None:
                call.deliver(output)

    def any_unfinished(self, besides: str) -> bool:
        """Whether the engine has more to say to anyone but calls whose ids begin with ``besides``."""
        return any(not call.finished and not number.startswith(besides) for number, call in self._pending.items())

    def fail_all(self, kind: FailureKind, message: str, retry_after: float = 0.0) -> None:
        """The engine is gone: every call in flight ends with an error of its own."""
        for call in self._pending.values():
            call.fail(EngineError(kind, message, retry_after=retry_after))
