"""Whether a model computes a row the same, bit for bit, alone and beside the rows that follow it.

Then tokens that were only guessed can be computed beside the last one without a change to any answer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ift_serve.engine.runner.batch_builder import BatchBuilder
from ift_serve.engine.sequences.step import SequenceStep
from ift_serve.modeling.decoder.decoder import Decoder

_PROMPT = 11
_GROUPS = (2, 3, 4, 5, 8, 16)


@torch.inference_mode()
def has_independent_rows(decoder: Decoder, build_batch: BatchBuilder, vocabulary: int, longest: int) -> bool:
    """Asked of a decoder over the CPU's kernels, before it serves: it writes to the first blocks of the cache.

    longest: tokens that a sequence can have; too few to tell leave it open, which is no.

    The fused decoder is made of operations of which this is known. In transformers' own modules it is so where all
    products are packed, and what is between them agrees with it over some rows.
    """
    if not decoder.has_packed_products:
        return False
    if decoder.name == "fused":
        return True
    count = _PROMPT + _GROUPS[-1]
    if count > longest:
        return False
    tokens = [(7919 * (i + 1) * (i + 3)) % vocabulary for i in range(count)]
    table = list(range(-(-count // build_batch.block_size)))

    def logits(start: int, end: int) -> Tensor:
        batch = build_batch([SequenceStep(0, tokens[start:end], start, table)])
        return decoder.logits(decoder.forward(batch, None))

    logits(0, _PROMPT)
    alone = torch.cat([logits(place, place + 1) for place in range(_PROMPT, count)])
    return all(torch.equal(logits(_PROMPT, _PROMPT + rows), alone[:rows]) for rows in _GROUPS)
