"""The steps that an engine runs before it says that it is ready."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ift_serve.engine.protocol.generate import SamplingParams
from ift_serve.engine.protocol.progress import WARM_UP_TOKENS
from ift_serve.engine.protocol.sampling import AdaptiveTemperature, TargetProbability, TemperatureRule
from ift_serve.engine.sequences.step import KnownMask, SamplingRow, SequenceStep, StepBatch

_PLAIN = SamplingParams(max_new_tokens=1)
_TRUNCATED = SamplingParams(top_p=0.9, top_k=8, max_new_tokens=1)
_PENALISED = SamplingParams(repetition_penalty=1.1, max_new_tokens=1)
_BOTH = SamplingParams(top_p=0.9, repetition_penalty=1.1, max_new_tokens=1)
_SHAPED = SamplingParams(top_n_sigma=1.0, p_less=True, max_new_tokens=1)
_GREEDY = SamplingParams(temperature=0.0, max_new_tokens=1)
_BY_ENTROPY = SamplingParams(adaptive=AdaptiveTemperature(rule=TemperatureRule.ENTROPY), max_new_tokens=1)
_PROCESSED = SamplingParams(processed_log_probs=True, max_new_tokens=1)
_PROCESSED_PENALISED = SamplingParams(processed_log_probs=True, repetition_penalty=1.1, max_new_tokens=1)
_TARGETED = SamplingParams(target_probability=TargetProbability(target=0.5), max_new_tokens=1)


def warm_up_batches(block_size: int, decode_sizes: list[int], vocabulary: int) -> Iterator[StepBatch]:
    """A prompt, a decode and their mixture, every way of sampling, then a decode of each size that has a graph.

    All of them write to the first block only.
    """

    def step(number: int, count: int, params: SamplingParams) -> SequenceStep:
        return SequenceStep(number, [0] * count, 0, [0], b"", SamplingRow(params, 0, 0, params.temperature, [0], 1))

    count = min(WARM_UP_TOKENS, block_size)
    yield StepBatch([step(-1, count, _TRUNCATED)], [])
    # The statistics by themselves, with the draw, and before it.
    for params in (_TRUNCATED, _GREEDY, _BY_ENTROPY):
        yield StepBatch([step(-1, 1, params)], [])
    if not decode_sizes:
        return
    yield StepBatch([step(-1, 1, _PLAIN), step(-2, count, _PENALISED)], [])
    yield StepBatch([step(-1, 1, _BOTH)], [])
    # From logits in the model's dtype, and from those that penalties have changed, which are float32.
    for params in (_PROCESSED, _PROCESSED_PENALISED):
        yield StepBatch([step(-1, 1, params)], [])
    for params in (_SHAPED, _TARGETED):
        masked = step(-2, 1, params)
        assert masked.sampling is not None
        masked.sampling.mask = KnownMask(np.full(-(-vocabulary // 32), -1, dtype=np.int32))
        yield StepBatch([step(-1, 1, params)], [])
        yield StepBatch([masked], [])
    for size in decode_sizes:
        yield StepBatch([step(-1 - index, 1, _PLAIN) for index in range(size)], [])
