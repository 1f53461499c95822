"""How a divided model starts: each rank reads it in turn, keeps its part, and together they are held against it."""

from __future__ import annotations

from collections.abc import Callable

from ift_serve.engine.runner.kept_checks import CheckOutcome, KeptChecks
from ift_serve.engine.runner.parallel.messages import Compare, LoadShard, Pack
from ift_serve.engine.runner.parallel.ranks import Ranks
from ift_serve.engine.runner.serving_check import ServingCheck, serve_windows
from ift_serve.modeling.decoder.decoder import Decoder, make_decoder
from ift_serve.modeling.decoder.fused_layers import can_fuse
from ift_serve.modeling.decoder.model_loader import LoadedModel
from ift_serve.modeling.decoder.sharding import check_shards, take_shard


def sharded_decoder(
    whole: LoadedModel,
    ranks: Ranks,
    backend: str,
    block_size: int,
    device: str,
    on_stage: Callable[[str], None],
    kept: KeptChecks | None,
) -> tuple[LoadedModel, Decoder]:
    """Rank 0's part of a model, and the decoder that computes it with the other ranks.

    ``whole`` is in host memory and loses its weights. Its structure and real weights are compared with transformers'
    own forward pass of the whole model, unless an earlier start did. One rank after another reads the model, so that
    the host holds it whole once. Raises UnsupportedModelError and ValueError, for the operator.
    """
    check_shards(whole, ranks.size)
    ranks.join()
    known = None if kept is None else kept.outcome()
    check: ServingCheck | None = None
    if known is None:
        on_stage("comparing a small model with transformers")
        check = ServingCheck(whole, backend if device == "cpu" else "cpu", block_size)
        known = CheckOutcome(check.fuses, check.windows)
    elif known.windows is not None:
        serve_windows(whole, known.windows)
    on_stage("dividing the weights")
    part = take_shard(whole, 0, ranks.size)
    part.model.to(device)
    ranks.in_turn(LoadShard(None if known.windows is None else list(known.windows)))
    on_stage("packing weights")
    fuses = known.fuses and can_fuse(part)
    ranks.tell(Pack(backend, fuses))
    decoder = make_decoder(part, backend, fuse=fuses)
    ranks.hear()
    if check is not None:
        on_stage("comparing the model with transformers")
        ranks.tell(Compare(backend, block_size))
        check.compare(decoder, part, backend)
        ranks.hear()
    if kept is not None:
        kept.keep(known)
    return part, decoder
