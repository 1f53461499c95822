"""A model runner without a model, whose answers depend on every value it reads through the block tables.

Each cache slot holds a state mixed from the token, its position and everything read before it, as keys
and values of deeper layers do. A wrong block, a missed copy, a stale or foreign prefix changes the answer.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from ift_serve.engine.protocol.generate import TokenStatistics
from ift_serve.engine.protocol.model import ModelDescription
from ift_serve.engine.protocol.progress import Progress
from ift_serve.engine.sequences.step import SampledToken, SamplingRow, ScoredTokens, SequenceStep, StepBatch, StepResult

VOCABULARY = 97
EOS = 0
_MASK = (1 << 64) - 1


def _hash(*parts: int) -> int:
    value = 0x243F6A8885A308D3
    for part in parts:
        value = ((value ^ part) * 0x9E3779B97F4A7C15 + 0x7F4A7C15) & _MASK
        value ^= value >> 29
    return value


class PagedOracle:
    """Deterministic stand-in for ``ModelRunner``. Checks what it is given as it goes."""

    def __init__(self, total_blocks: int, block_size: int = 4, context_length: int = 1 << 20) -> None:
        self.total_blocks = total_blocks
        self.block_size = block_size
        poison = random.Random(0)
        self._slots = [poison.getrandbits(64) for _ in range(total_blocks * block_size)]
        self.computed_tokens = 0
        self.progress = Progress()
        self.drafted = 0
        self.batches: list[int] = []
        self.copies = 0
        self.fail_next = False
        self.description = ModelDescription(
            name="oracle",
            path="",
            architecture="oracle",
            fingerprint="0",
            context_length=context_length,
            vocabulary_size=VOCABULARY,
            hidden_size=1,
            layers=1,
            parameters=0,
            dtype="none",
            device="cpu",
            eos_ids=[EOS],
            block_size=block_size,
            total_blocks=total_blocks,
            max_batch_tokens=0,
            max_sequences=0,
            attention_backend="oracle",
        )

    def profile(self) -> None:
        """It computes nothing that a trace could show."""

    def execute(self, batch: StepBatch) -> StepResult:
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError("told to fail")
        self._copy(batch.block_copies)
        written = [slot for step in batch.sequences for slot in self._new_slots(step)]
        assert len(written) == len(set(written)), "two sequences write one slot"
        ids = [step.sequence_id for step in batch.sequences]
        assert len(ids) == len(set(ids)), "a sequence is in the batch twice"
        self.batches.append(len(written))
        self.computed_tokens += len(written)
        result = StepResult([], [])
        for place, step in enumerate(batch.sequences):
            sampled, scored = self._run(step)
            result.scored.append(scored)
            result.sampled.append(sampled[0] if sampled else None)
            if step.drafts:
                result.drafted[place] = sampled[1:]
        return result

    def _copy(self, copies: list[tuple[int, int]]) -> None:
        targets = [target for _, target in copies]
        self.copies += len(copies)
        assert len(targets) == len(set(targets)), "two copies into one block"
        size = self.block_size
        contents = [self._slots[source * size : (source + 1) * size] for source, _ in copies]
        for target, content in zip(targets, contents, strict=True):
            self._slots[target * size : (target + 1) * size] = content

    def _slot(self, step: SequenceStep, position: int) -> int:
        return step.block_table[position // self.block_size] * self.block_size + position % self.block_size

    def _new_slots(self, step: SequenceStep) -> Iterable[int]:
        assert step.token_ids, "nothing to compute"
        return (self._slot(step, step.start + offset) for offset in range(len(step.token_ids)))

    def _run(self, step: SequenceStep) -> tuple[list[SampledToken], ScoredTokens | None]:
        total = sum(self._slots[self._slot(step, position)] for position in range(step.start)) & _MASK
        sums = []
        for offset, token in enumerate(step.token_ids):
            position = step.start + offset
            state = state_of(token, position, total)
            self._slots[self._slot(step, position)] = state
            total = (total + state) & _MASK
            sums.append(total)
        sampled = []
        if step.sampling is not None:
            self.drafted += len(step.drafts)
            rows = (step.sampling, *step.drafts)
            sampled = [self._sample(step, row, sums[place - len(rows)]) for place, row in enumerate(rows)]
        scored = None
        if step.score_targets is not None:
            pairs = list(zip(sums[-len(step.score_targets) :], step.score_targets, strict=True))
            scored = ScoredTokens(
                [-(_hash(value, target) % 1000) / 100 for value, target in pairs],
                [_greedy(value) == target for value, target in pairs],
            )
        return sampled, scored

    def _sample(self, step: SequenceStep, row: SamplingRow, total: int) -> SampledToken:
        end = len(row.history) + len(row.drafted)
        assert end == step.start + len(step.token_ids) - len(step.drafts) + len(row.drafted), "drawn too early"
        assert [*row.history, *row.drafted][step.start : end] == step.token_ids[: end - step.start]
        assert row.step == end - row.prompt_length, "the generator's counter is wrong"
        token = drawn_token(total, row, row.step)
        statistics = TokenStatistics(-1.0, 0.5, 0.25, 1.0, -2.0, row.temperature)
        top = [((token + k) % VOCABULARY, -1.0 - k) for k in range(row.params.top_logprobs)]
        return SampledToken(token, statistics, top)


def state_of(token: int, position: int, total: int) -> int:
    """What the slot of a token holds, ``total`` being the sum of the slots before it."""
    return _hash(token, position, total)


def drawn_token(total: int, row: SamplingRow, step: int) -> int:
    """What is drawn behind slots of that sum."""
    if row.temperature > 0:
        return _hash(total, row.seed, step, round(row.temperature * 1000)) % VOCABULARY
    return _greedy(total)


def _greedy(total: int) -> int:
    return _hash(total) % VOCABULARY
