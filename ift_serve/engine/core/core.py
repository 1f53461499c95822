"""The engine's loop body: requests in, one step, outputs out. Synchronous, without tensors or sockets."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from math import isnan

from ift_serve.engine.adapters.admission import AdapterAdmission
from ift_serve.engine.adapters.host import AdapterTensors, NoAdapters
from ift_serve.engine.adapters.limits import AdapterLimits
from ift_serve.engine.adapters.registry import AdapterRegistry
from ift_serve.engine.cache.block_tables import BlockTables
from ift_serve.engine.config import EngineConfig
from ift_serve.engine.core.draws import Draws
from ift_serve.engine.core.intake import Intake
from ift_serve.engine.core.limits import RequestValidator
from ift_serve.engine.core.outputs import candidate_outputs, score_output
from ift_serve.engine.core.request import Generation, Request, Scoring
from ift_serve.engine.core.returning import Returning
from ift_serve.engine.core.rounds import Rounds
from ift_serve.engine.core.runner import Runner
from ift_serve.engine.core.strategy import ConstraintFactory, Strategies, no_constraint
from ift_serve.engine.drafting.drafts import Drafts
from ift_serve.engine.protocol.adapter import AdapterReply, LoadAdapter, UnloadAdapter
from ift_serve.engine.protocol.generate import CandidateOutput, GenerateRequest
from ift_serve.engine.protocol.progress import WARM_UP_TOKENS, Progress
from ift_serve.engine.protocol.refused import RefusedError
from ift_serve.engine.protocol.results import FailureKind, FinishReason, RequestFailed
from ift_serve.engine.protocol.score import ScoreOutput, ScoreRequest
from ift_serve.engine.protocol.stats import EngineStats
from ift_serve.engine.protocol.wire import StepOutputs
from ift_serve.engine.scheduling.completion_rate import CompletionRate
from ift_serve.engine.scheduling.deadlines import Deadlines
from ift_serve.engine.scheduling.scheduler import Scheduler
from ift_serve.engine.sequences.sequence import Sequence
from ift_serve.engine.sequences.step import ComputeLostError, ScoredTokens, StepBatch, StepResult
from ift_serve.sharing.places import Places
from ift_serve.system.machine import available_memory

_log = logging.getLogger(__name__)

_FAILURES_IN_A_ROW = 3
"""Failed steps after which the engine gives up: the process is restarted rather than fail every request."""


class EngineCore:
    """Owns the requests in flight. Not thread-safe; whoever runs the loop calls everything.

    ``clock``: seconds, the one that the messages' times are of.
    """

    def __init__(
        self,
        runner: Runner,
        config: EngineConfig,
        strategies: Strategies,
        clock: Callable[[], float] = time.monotonic,
        adapter_tensors: AdapterTensors | None = None,
        constraints: ConstraintFactory = no_constraint,
        drafts: Drafts | None = None,
    ) -> None:
        """``drafts``: what guesses tokens; None: every token takes a step."""
        self._runner = runner
        self._clock = clock
        self._model = runner.description
        places = Places(2 * config.max_waiting)
        self._tables = BlockTables(runner.total_blocks, runner.block_size, config.prefix_caching)
        self._adapters = AdapterRegistry(
            adapter_tensors or NoAdapters(),
            clock,
            patience=config.patience,
            limits=AdapterLimits.within(
                config.max_adapters,
                config.max_adapter_bytes,
                available_memory(),
                self._model.cache_bytes if self._model.device == "cpu" else 0,
            ),
            evicts=config.evict_adapters,
        )
        self._admission = AdapterAdmission(self._adapters)
        self._drafts = drafts
        self._scheduler = Scheduler(
            self._tables, config.max_batch_tokens, config.max_sequences, self._admission, places, drafts
        )
        self._requests: dict[str, Request] = {}
        self._deadlines: Deadlines[Request] = Deadlines()
        self._outputs: list[CandidateOutput | ScoreOutput | AdapterReply | RequestFailed] = []
        self._rounds = Rounds(self._scheduler, self._close, self._fail, clock)
        self._draws = Draws(self._rounds, self._tables, self._fail)
        self._progress = Progress()
        self._failures = 0
        self._woken = False
        self._completion_rate = CompletionRate(clock())
        self._intake = Intake(
            self._model,
            RequestValidator(self._model, runner.block_size, runner.total_blocks),
            strategies,
            constraints,
            self._adapters,
            self._scheduler,
            places,
            self._completion_rate,
            config.max_waiting,
            clock,
        )
        self._steps = self._batch_tokens = 0
        self._step_seconds = 0.0

    def add(self, message: GenerateRequest | ScoreRequest) -> None:
        """Queue a request. One that cannot be taken is answered with ``RequestFailed`` by the next step."""
        try:
            if message.request_id in self._requests:
                raise RefusedError(FailureKind.INVALID, "request_id: already in use", "request_id")
            self._opened(self._intake.open(message))
        except RefusedError as error:
            self._refuse(message.request_id, error)

    def _opened(self, request: Generation | Scoring | Returning) -> None:
        if request.done:
            assert isinstance(request, Scoring)
            self._outputs.append(score_output(request))
            return
        self._requests[request.request_id] = request
        self._deadlines.add(request)

    def _refuse(self, request_id: str, error: RefusedError) -> None:
        failed = RequestFailed(
            request_id=request_id,
            kind=error.kind,
            message=error.message,
            field=error.field,
            retry_after=error.retry_after,
        )
        self._outputs.append(failed)

    def load_adapter(self, message: LoadAdapter) -> None:
        """Begin to load an adapter; a later step says how it went."""
        self._adapters.load(message)

    def unload_adapter(self, message: UnloadAdapter) -> None:
        """Refuse new requests for an adapter and free it when it is no longer used."""
        self._adapters.unload(message)

    def profile(self) -> None:
        """Have a trace of the next steps written."""
        self._runner.profile()

    def report_to(self, progress: Progress) -> None:
        """Note there from now on what is done."""
        progress.expect(self._runner.progress, self._model.max_batch_tokens / WARM_UP_TOKENS)
        self._progress = self._runner.progress = progress

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called, from any thread, when an idle engine has something to do: an adapter is loaded."""
        self._woken = False

        def woken() -> None:
            self._woken = True
            wake()

        self._adapters.on_wake(woken)

    def stop(self, request_id: str, candidate: int) -> None:
        """Drop one candidate: its blocks are freed, nothing more of it is sent. Unknown ones are ignored.

        The request ends with its last one, which its strategy is told.
        """
        request = self._requests.get(request_id)
        if not isinstance(request, Generation):
            return
        for sequence in [s for s in request.live if s.candidate == candidate]:
            self._drop(sequence, FinishReason.STOP)
            self._rounds.stopped(sequence)
        if request.done and request.unsent:
            # Its siblings' round was complete without it, and ended them: no step will draw for them again.
            self._outputs += candidate_outputs(request)

    def abort(self, request_id: str) -> None:
        """Drop a request: its blocks are freed, nothing more is sent. Unknown ones are ignored."""
        request = self._requests.get(request_id)
        if request is None:
            return
        if isinstance(request, Generation) and request.first_token:
            self._rounds.conclude(request, FinishReason.CANCELLED)
        if not request.done:
            self._discard(request)
        elif isinstance(request, Generation):
            request.suppress_output = True
            request.unsent.clear()

    @property
    def loading(self) -> bool:
        """Whether adapters are being read."""
        return self._adapters.loading

    def has_work(self) -> bool:
        """Whether ``step`` would do or say anything."""
        return bool(self._requests or self._outputs or self._woken or self._adapters.busy)

    def step(self) -> StepOutputs:
        """Compute once; return what there is to say. Raises what the runner raises if it keeps failing."""
        started = self._clock()
        self._progress.begin()
        self._expire(started)
        self._woken = False
        self._step_adapters()
        for request, why in self._intake.start_prepared():
            self._fail(request, FailureKind.INVALID, f"{request.output_field}: {why}", request.output_field)
        batch = self._scheduler.schedule(started)
        if batch.sequences:
            self._execute(batch)
            self._step_seconds += self._clock() - started
        for request in self._draws.unsent:
            request.has_new_tokens = False
            self._outputs += candidate_outputs(request)
        self._draws.unsent.clear()
        replies, changes = self._adapters.take_changes()
        self._outputs += replies
        outputs, self._outputs = self._outputs, []
        if batch.sequences or outputs or changes or self._adapters.is_returning:
            self._progress.work()
        return StepOutputs(outputs=outputs, stats=self.stats(), adapters=changes)

    def _step_adapters(self) -> None:
        """Take in what was read; end requests of versions whose time to drain is over, or that cannot be read again."""
        for version in self._adapters.step():
            for request in [r for r in self._requests.values() if r.adapter is version]:
                self._fail(request, FailureKind.CANCELLED, f"adapter {version.key} was unloaded")
        for version, error in self._adapters.take_unreadable():
            text = f"adapter: {version.key} had left the memory and cannot be read again: {error.message}"
            for request in [r for r in self._requests.values() if r.adapter is version and isinstance(r, Returning)]:
                self._fail(request, error.kind, text, "adapter")
        for waited in self._intake.take_returned():
            del self._requests[waited.request_id]
            try:
                self._opened(self._intake.reopen(waited))
            except RefusedError as error:
                self._refuse(waited.request_id, error)

    def stats(self) -> EngineStats:
        """A snapshot."""
        blocks, scheduler, draws = self._tables.blocks, self._scheduler, self._draws
        waiting = scheduler.waiting_requests + self._intake.returning
        return EngineStats(
            waiting=waiting,
            running=len(scheduler.running) + len(scheduler.preempted) + len(scheduler.paused),
            running_requests=len(self._requests) - waiting - self._intake.preparing,
            free_blocks=blocks.free,
            total_blocks=blocks.total,
            cached_blocks=blocks.cached,
            prompt_tokens=draws.prompt_tokens,
            cached_tokens=scheduler.cached_tokens,
            generated_tokens=draws.generated_tokens,
            preemptions=scheduler.preemptions,
            steps=self._steps,
            step_seconds=self._step_seconds,
            batch_tokens=self._batch_tokens,
            adapter_bytes=self._adapters.bytes,
            adapter_users=self._adapters.in_flight,
            resident_adapters=self._adapters.resident,
            adapter_evictions=self._adapters.evictions,
            adapter_returns=self._adapters.returned,
            strategy_seconds=self._rounds.seconds,
            slow_callbacks=self._rounds.slow_callbacks,
            drafted_tokens=draws.drafted_tokens,
            accepted_tokens=draws.accepted_tokens,
        )

    def check_integrity(self) -> None:
        """Raise AssertionError unless every block and sequence is accounted for. For tests."""
        self._scheduler.check_integrity()
        placed = {id(s) for s in (*self._scheduler.running, *self._scheduler.preempted, *self._scheduler.paused)}
        live = {id(s) for request in self._requests.values() if request.admitted for s in request.live}
        assert placed == live, "a live sequence has no place, or an ended one has"

    def _execute(self, batch: StepBatch) -> None:
        started = self._clock()
        try:
            result = self._runner.execute(batch)
        except ComputeLostError:
            raise
        except Exception:
            self._failures += 1
            if self._failures >= _FAILURES_IN_A_ROW:
                raise
            _log.exception("a step failed; all requests in flight are lost")
            self._fail_all("the model failed on a step")
            return
        self._failures = 0
        self._steps += 1
        if self._drafts is not None:
            self._drafts.note(self._clock() - started)
        self._process(batch, result)

    def _process(self, batch: StepBatch, result: StepResult) -> None:
        """Take in what the step computed, sequence by sequence; then tell the strategies whose rounds are complete."""
        draws, advance = self._draws, self._tables.advance
        draws.begin(self._clock())
        total = 0
        for place, (sequence, step, sampled, scored) in enumerate(
            zip(self._scheduler.scheduled, batch.sequences, result.sampled, result.scored, strict=True)
        ):
            total += len(step.token_ids)
            computed = len(step.token_ids) - len(step.drafts)
            sequence.pending = False
            if sequence.ended is not None:
                continue
            request = sequence.owner
            request.account.served += computed
            advance(sequence, step.start + computed)
            if sampled is not None:
                draws.take(sequence, step, sampled, result.drafted.get(place, []))
                continue
            if scored is not None:
                if any(map(isnan, scored.log_probs)):
                    draws.fail_unsound(sequence)
                    continue
                sequence.take_scores(scored)
            if sequence.deferred and sequence.computed == sequence.goal and sequence.ended is None:
                self._reach_goal(sequence)
        draws.end()
        self._batch_tokens = total
        self._scheduler.accounts.advance(total)

    def _reach_goal(self, sequence: Sequence) -> None:
        """A prompt that several sequences share is computed, or tokens are scored."""
        request = sequence.owner
        if request.split_pending:
            self._scheduler.split(sequence)
        elif isinstance(request, Generation):
            request.drawn[sequence] = ScoredTokens(sequence.scored_log_probs, [])
            self._draws.tell(request)
        else:
            assert isinstance(request, Scoring)
            request.finish_sequence(sequence)
            self._drop(sequence, FinishReason.LENGTH)
            if not request.live:
                self._draws.prompt_tokens += request.prompt.length
                self._outputs.append(score_output(request))
                self._close(request)

    def _expire(self, now: float) -> None:
        """End the requests whose deadline has passed; what was generated is kept."""
        for request in self._deadlines.take_passed(now):
            if not isinstance(request, Generation) or not request.first_token:
                self._fail(request, FailureKind.DEADLINE, "the deadline passed before there was an answer")
                continue
            self._rounds.conclude(request, FinishReason.DEADLINE)
            if not request.suppress_output:
                self._outputs += candidate_outputs(request)

    def _drop(self, sequence: Sequence, reason: FinishReason) -> None:
        """End a sequence that sends nothing more."""
        request = sequence.owner
        sequence.ended = reason
        request.live.remove(sequence)
        if isinstance(request, Generation):
            if request.timeline is not None:
                request.timeline.end(sequence)
            request.drawn.pop(sequence, None)
            if sequence in request.unsent:
                request.unsent.remove(sequence)
        self._scheduler.remove(sequence)

    def _discard(self, request: Request) -> None:
        """End a request that sends nothing more, running or waiting."""
        for sequence in list(request.live):
            self._drop(sequence, FinishReason.CANCELLED)
        request.unsent.clear()
        request.suppress_output = True
        if not request.done:
            self._close(request)

    def _fail(self, request: Request, kind: FailureKind, message: str, field: str = "") -> None:
        self._discard(request)
        usage = None if request.timeline is None else request.usage()
        failed = RequestFailed(request_id=request.request_id, kind=kind, message=message, field=field, usage=usage)
        self._outputs.append(failed)

    def _fail_all(self, message: str) -> None:
        """Fail every request and forget every prefix: nothing written by a failed step can be trusted."""
        for request in list(self._requests.values()):
            self._fail(request, FailureKind.INTERNAL, message)
        self._tables.blocks.forget_all()

    def _close(self, request: Request) -> None:
        request.done = True
        if not request.admitted:
            self._scheduler.withdraw(request)
        self._admission.end(request)
        if request.adapter is not None:
            self._adapters.leave(request.adapter)
        del self._requests[request.request_id]
        self._scheduler.accounts.close(request.account)
        self._completion_rate.note(self._clock())
        self._deadlines.sweep(len(self._requests))
