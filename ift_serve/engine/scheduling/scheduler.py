"""Decides what each step computes: decodes first, then prefill chunks, within one token budget."""

from __future__ import annotations

from bisect import insort
from itertools import chain, count
from operator import attrgetter

from ift_serve.engine.adapters.admission import AdapterAdmission
from ift_serve.engine.cache.block_tables import BlockTables
from ift_serve.engine.drafting.drafts import Drafts
from ift_serve.engine.scheduling.draft_steps import DraftSteps
from ift_serve.engine.scheduling.fair_share import FairShares
from ift_serve.engine.scheduling.waiting_queue import WaitingQueue
from ift_serve.engine.sequences.sequence import Owner, Sequence
from ift_serve.engine.sequences.step import SequenceStep, StepBatch
from ift_serve.sharing.accounts import Account, Accounts
from ift_serve.sharing.places import Places

_KEY = attrgetter("key")
_PUT_OFF = 64
"""Requests that one step looks past because their next block is being computed; more would cost the step too much."""


class Scheduler:
    """Sequences by state, each list in order of precedence (rank, then candidate); callers by ``FairShares``.

    ``running`` sequences have a row and all blocks for the tokens they have; each goes forward in every
    step in which the budget reaches it. ``preempted`` ones wait for a row or for blocks: forks may hold shared
    blocks meanwhile, preempted ones hold none and compute their tokens again. ``paused`` ones have drawn, wait for
    their siblings, and gave their rows to others. ``waiting`` holds requests
    that have not started, ``slotless`` those of them whose adapter found no slot, until that may have changed.

    Blocks run out only while sequences grow. Then those of least precedence lose theirs, of callers above their
    share before others, so the first always advances and every request that fits into the cache alone ends.
    """

    def __init__(
        self,
        tables: BlockTables,
        max_batch_tokens: int,
        max_sequences: int,
        admission: AdapterAdmission,
        places: Places,
        drafts: Drafts | None = None,
    ) -> None:
        """``drafts``: what guesses tokens for steps that only decode; None: nothing does."""
        self._tables = tables
        self._drafts = None if drafts is None else DraftSteps(drafts, tables)
        self._admission = admission
        self._places = places
        self._max_batch_tokens = max_batch_tokens
        self._max_sequences = max_sequences
        self._numbers = count()
        self._steps: list[SequenceStep] = []
        self.accounts = Accounts()
        self._shares = FairShares(self.accounts, max_sequences, tables.blocks.total)
        self.waiting = WaitingQueue()
        self.slotless: dict[Owner, None] = {}
        self.running: list[Sequence] = []
        self.preempted: list[Sequence] = []
        self.paused: dict[Sequence, None] = {}
        self.scheduled: list[Sequence] = []
        self.preemptions = 0
        self.cached_tokens = 0

    def schedule(self, now: float) -> StepBatch:
        """The next step's batch; ``scheduled`` holds its sequences in the same order."""
        self.scheduled = []
        self._steps = []
        self._tables.begin_step()
        if self._admission.changed:
            self._ask_again()
        first = self._make_room() if self.preempted or len(self.waiting) else None
        self._schedule_decodes()
        decodes = len(self._steps)
        budget = self._max_batch_tokens - decodes
        if len(self._steps) < len(self.running):
            budget = self._schedule_chunks(budget)
        if self._drafts is not None and len(self._steps) == decodes and not self.preempted and not len(self.waiting):
            self._drafts.extend(self._steps, self.scheduled, budget, len(self.running))
        elif budget and (self.preempted or len(self.waiting)):
            self._admit(budget, now, first)
        return StepBatch(self._steps, self._tables.copies)

    def hold(self, request: Owner) -> None:
        """A new request takes a place among those that wait."""
        self._places.take(request.account.client)

    def enqueue(self, request: Owner) -> None:
        """A request that holds a place, with its root sequence, waits to be scheduled."""
        self.waiting.push(request)

    def withdraw(self, request: Owner) -> None:
        """A request that has not started will not."""
        self._places.leave(request.account.client)
        self.slotless.pop(request, None)
        self.waiting.remove(request)

    @property
    def waiting_requests(self) -> int:
        """Requests that have not started."""
        return len(self.waiting) + len(self.slotless)

    def _ask_again(self) -> None:
        """Slots have changed: those who found none wait for their turn again."""
        self._admission.changed = False
        for request in self.slotless:
            self.waiting.push(request)
        self.slotless.clear()

    def split(self, root: Sequence) -> None:
        """The prompt is computed: the request's other sequences begin on the root's blocks."""
        request = root.owner
        numbers = [next(self._numbers) for _ in range(request.width - 1)]
        for child in request.split(root, numbers):
            self.fork(root, child)

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """Start ``child`` on the parent's blocks; without a free row it is preempted with them."""
        parent.ahead.clear()  # what was drafted stands in a block that is shared now
        self._tables.share(parent, child)
        free_row = len(self.running) < self._max_sequences and not self.preempted
        if free_row:
            self._give_row(child)
        else:
            insort(self.preempted, child, key=_KEY)

    def remove(self, sequence: Sequence) -> None:
        """Free the row and the blocks of a sequence that ended. A waiting request's root has neither."""
        if sequence.has_row:
            self._take_row(sequence)
        elif sequence in self.paused:
            del self.paused[sequence]
        elif sequence in self.preempted:
            self.preempted.remove(sequence)
        self._tables.release(sequence)

    def pause(self, sequence: Sequence) -> None:
        """A sequence waits for its siblings. If others want its row they get it; its blocks it keeps while they can."""
        sequence.is_paused = True
        if sequence.has_row and (self.preempted or len(self.waiting)):
            self._take_row(sequence)
            self.paused[sequence] = None

    def resume(self, sequence: Sequence) -> None:
        """A sequence that was paused, if it was, goes on when there is a row for it."""
        sequence.is_paused = False
        if sequence in self.paused:
            del self.paused[sequence]
            insort(self.preempted, sequence, key=_KEY)

    def _give_row(self, sequence: Sequence) -> None:
        insort(self.running, sequence, key=_KEY)
        sequence.has_row = True
        sequence.row_start = len(sequence.tokens)
        sequence.owner.account.rows += 1

    def _take_row(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        sequence.ahead.clear()
        sequence.has_row = False
        sequence.owner.account.rows -= 1

    def next_number(self) -> int:
        """A number that no sequence of this process has had."""
        return next(self._numbers)

    def _schedule_decodes(self) -> None:
        """One token for every running sequence that has just one to compute."""
        scheduled, steps = self.scheduled, self._steps
        for sequence in tuple(self.running):
            if not sequence.has_row:  # preempted by one before it
                continue
            position = sequence.computed
            if len(sequence.tokens) - position != 1 or sequence.deferred:
                continue
            if position >= sequence.capacity and not self._grow(sequence):
                continue
            if sequence.may_share_tail and not self._own_tail(sequence):
                continue
            sequence.last_token[0] = sequence.tokens[position]
            step = sequence.decode_step
            step.start = position
            row = sequence.row
            if row is not None:
                row.step = position + 1 - sequence.prompt_length
            sequence.pending = True
            scheduled.append(sequence)
            steps.append(step)

    def _schedule_chunks(self, budget: int) -> int:
        """Go on with running sequences that have several tokens to compute. Returns the budget left."""
        done = set(map(id, self.scheduled))
        for sequence in tuple(self.running):
            if budget == 0:
                break
            if sequence.has_row and id(sequence) not in done and sequence.computed < sequence.goal:
                budget -= self._schedule_chunk(sequence, budget)
        return budget

    def _schedule_chunk(self, sequence: Sequence, budget: int) -> int:
        """Compute up to ``budget`` tokens of a sequence towards its goal. Returns how many."""
        start, goal = sequence.computed, sequence.goal
        end = min(goal, start + budget)
        if sequence.may_share_tail and not self._own_tail(sequence):
            return 0
        while end > sequence.capacity:
            if not self._grow(sequence):
                return 0
        step = SequenceStep(
            sequence.number,
            sequence.tokens[start:end],
            start,
            sequence.table,
            sequence.segments(start, end),
            score_targets=sequence.targets(start, end),
            judges=sequence.judged is not None,
            adapter=sequence.owner.slot,
            prompt=sequence.prompt.adapted,
        )
        row = sequence.row
        if end == goal and row is not None and not sequence.deferred:
            row.step = end - sequence.prompt_length
            step.sampling = row
        self._tables.claim(sequence, start, end)
        sequence.pending = True
        self.scheduled.append(sequence)
        self._steps.append(step)
        return end - start

    def _next(self) -> Sequence | Owner | None:
        """What gets a row next, of what has a slot: the first in order of the callers' firsts."""
        refused: set[Owner] = set()
        while firsts := self._firsts(refused):
            first = min(firsts.values(), key=self._order)
            request = _root(first).owner
            if self._admission.admits(request):
                return first
            if not isinstance(first, Sequence):
                self.waiting.remove(first)
                self.slotless[first] = None
            else:
                refused.add(request)
        return None

    def _firsts(self, refused: set[Owner]) -> dict[Account, Sequence | Owner]:
        """What each caller would start next: what has started before what has not, unless that is more urgent."""
        firsts: dict[Account, Sequence | Owner] = {}
        for sequence in self.preempted:
            if sequence.owner not in refused:
                firsts.setdefault(sequence.owner.account, sequence)
        for request in self.waiting.heads():
            preempted = firsts.get(request.account)
            other = None if preempted is None else _root(preempted).owner
            if other is None or (request.priority > other.priority and request.rank < other.rank):
                firsts[request.account] = request
        return firsts

    def _order(self, first: Sequence | Owner) -> tuple[bool, float, bool, tuple[int, ...]]:
        root = _root(first)
        return *self._shares.order(root.owner), not isinstance(first, Sequence), root.key

    def _make_room(self) -> Sequence | Owner | None:
        """Preempt running sequences that give way to what comes first, as far as it needs. Returns that."""
        self._shares.measure(chain(self.running, self.preempted, self.paused))
        head = self._next()
        if head is None:
            return None
        root = _root(head)
        while len(self.running) >= self._max_sequences or not self._fits(root, self._tables.hits(root)):
            victim = next((one for one in reversed(self.running) if self._shares.gives_way(one, root.owner)), None)
            if victim is None:
                break
            self._preempt(victim)
        return head

    def _admit(self, budget: int, now: float, first: Sequence | Owner | None) -> None:
        """Give rows to preempted sequences and waiting requests, in order from ``first``, until one does not fit.

        A sequence whose next block is being computed in this very step is put off: in the next one it
        takes that block up from the cache.
        """
        put_off: list[Sequence | Owner] = []
        while budget and len(self.running) < self._max_sequences:
            head, first = first or self._next(), None
            if head is None:
                break
            root = _root(head)
            hits = self._tables.hits(root)
            if self._tables.is_being_computed(root, len(hits)):
                self._take_out(head)
                put_off.append(head)
                if len(put_off) >= _PUT_OFF:
                    break
                continue
            if not self._fits(root, hits) and not (not self.running and self._strip_preempted(root, hits)):
                break
            self._take_out(head)
            budget -= self._start(root, hits, budget, now)
        for item in reversed(put_off):
            if isinstance(item, Sequence):
                insort(self.preempted, item, key=_KEY)
            else:
                self.waiting.push(item)

    def _start(self, sequence: Sequence, hits: list[int], budget: int, now: float) -> int:
        """Give a row and blocks, cached ones first; schedule the first chunk. Returns its tokens."""
        self._tables.take_up(sequence, hits)
        self._give_row(sequence)
        request = sequence.owner
        request.slot = sequence.decode_step.adapter = self._admission.start(request)
        if not request.admitted:
            request.admitted = now
            request.cached_tokens = sequence.computed
            self.cached_tokens += sequence.computed
            self._places.leave(request.account.client)
        if sequence.computed == sequence.goal:
            self.split(sequence)
        return self._schedule_chunk(sequence, budget)

    def _take_out(self, head: Sequence | Owner) -> None:
        if isinstance(head, Sequence):
            self.preempted.remove(head)
        else:
            self.waiting.remove(head)

    def _fits(self, sequence: Sequence, hits: list[int]) -> bool:
        """Whether there are blocks for all its tokens, and some for those who run already to grow into."""
        return self._tables.left_over(sequence, hits) >= len(self.running) // 2

    def _strip_preempted(self, sequence: Sequence, hits: list[int]) -> bool:
        """Take blocks from preempted sequences, last first, until ``sequence`` fits."""
        for other in chain(tuple(self.paused), reversed(self.preempted)):
            if self._fits(sequence, hits):
                break
            if other is not sequence:
                self._strip(other)
        return self._fits(sequence, hits)

    def _grow(self, sequence: Sequence) -> bool:
        """One block more; False when the sequence itself had to give way."""
        if not self._reclaim(sequence):
            return False
        self._tables.append(sequence)
        return True

    def _own_tail(self, sequence: Sequence) -> bool:
        """Copy the partial last block if others share it; False when the sequence itself had to give way."""
        if self._tables.must_copy_tail(sequence):
            if not self._reclaim(sequence):
                return False
            if self._tables.must_copy_tail(sequence):
                self._tables.copy_tail(sequence)
        return True

    def _reclaim(self, sequence: Sequence) -> bool:
        """Make a block available at the cost of the last in order; False when that is ``sequence``."""
        while not self._tables.blocks.available:
            without_row = chain(reversed(self.preempted), self.paused)
            preempted = next((other for other in without_row if other.table), None)
            if preempted is not None:
                self._strip(preempted)
                continue
            self._shares.measure(chain(self.running, self.preempted, self.paused))
            victim = self._shares.last_to_spare(self.running) or self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's row and blocks; it computes its tokens again when its turn comes."""
        if sequence in self.scheduled:
            index = self.scheduled.index(sequence)
            del self.scheduled[index], self._steps[index]
            sequence.pending = False
        self._take_row(sequence)
        self._shares.preempted(sequence)
        self._strip(sequence)
        if sequence.is_paused:
            self.paused[sequence] = None
        else:
            insort(self.preempted, sequence, key=_KEY)
        sequence.owner.preemptions += 1
        self.preemptions += 1

    def _strip(self, sequence: Sequence) -> None:
        """Take the blocks of a sequence that has no row; with a request's last ones goes its adapter's slot."""
        self._tables.release(sequence)
        request = sequence.owner
        if request.adapter is not None and not any(s.table or s.has_row for s in request.live):
            self._admission.suspend(request)

    def check_integrity(self) -> None:
        """Raise AssertionError unless blocks, rows and order are consistent. For tests."""
        resident = [*self.running, *self.preempted, *self.paused]
        self._tables.check_integrity(resident)
        assert len(self.running) <= self._max_sequences, "more sequences than rows"
        for group in (self.running, self.preempted):
            assert [s.key for s in group] == sorted(s.key for s in group), "out of order"
        for sequence in resident:
            assert sequence.has_row == (sequence in self.running), "a row that is not known"
            assert sequence.ended is None, f"sequence {sequence.number} ended and still has a place"


def _root(head: Sequence | Owner) -> Sequence:
    return head if isinstance(head, Sequence) else head.live[0]
