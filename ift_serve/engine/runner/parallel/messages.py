"""What rank 0 tells its followers, and what they answer; MessagePack over a private socket, tensors as plain bytes."""

from __future__ import annotations

import msgspec


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """The first message. ``config``: the engine's, as JSON; ``device``: cpu or cuda; for ``rank`` of ``size``."""

    config: str
    device: str
    rank: int
    size: int


class Join(msgspec.Struct, frozen=True, tag="join"):
    """Meet the others: ``directory`` is private, and holds the file by which they find one another."""

    directory: str


class LoadShard(msgspec.Struct, frozen=True, tag="load"):
    """Read the model and keep the rank's part. ``windows``: of its layers, where they stand in its own masks alone."""

    windows: list[int] | None


class Pack(msgspec.Struct, frozen=True, tag="pack"):
    """Make the decoder of it."""

    backend: str
    fuses: bool


class Compare(msgspec.Struct, frozen=True, tag="compare"):
    """Compute the prompts by which the served model is compared with transformers' own."""

    backend: str
    block_size: int


class OpenCache(msgspec.Struct, frozen=True, tag="cache"):
    """Take the memory of keys and values. ``dtype``: torch's name of it; ``scales``: of a float8 cache, by layer."""

    blocks: int
    block_size: int
    dtype: str
    backend: str
    scales: list[tuple[float, float]] | None = None


class ShardSequence(msgspec.Struct, frozen=True, array_like=True):
    """What of a ``SequenceStep`` the layers need."""

    token_ids: list[int]
    start: int
    block_table: list[int]
    adapter: int


class Step(msgspec.Struct, frozen=True, tag="step"):
    """Compute one batch. ``wanted``: the rows of which logits are needed, None for all; ``chunk`` of them at a time."""

    sequences: list[ShardSequence]
    block_copies: list[tuple[int, int]]
    wanted: list[int] | None
    chunk: int


class FactorParts(msgspec.Struct, frozen=True, array_like=True):
    """A rank's part of low-rank factors ``a [r, K]`` and ``b [r, N]``, in the model's dtype."""

    rank: int
    scale: float
    a: bytes
    b: bytes


class PlaceLinear(msgspec.Struct, frozen=True, tag="linear"):
    """The factors of one adaptable linear of an adapter that is about to be placed."""

    index: int
    parts: list[FactorParts | None]


class PlaceAdapter(msgspec.Struct, frozen=True, tag="place"):
    """Have batches find the adapter whose linears came before in ``slot``."""

    slot: int


class ClearSlot(msgspec.Struct, frozen=True, tag="clear"):
    """Free the adapter of a slot."""

    slot: int


class Done(msgspec.Struct, frozen=True, tag="done"):
    """What was asked is done. ``resident``: bytes that the follower holds; ``free``: bytes that its GPU has left."""

    resident: int = 0
    free: int = 0


class RankFailed(msgspec.Struct, frozen=True, tag="failed"):
    """The follower cannot go on, and ends; ``message`` is for the operator."""

    message: str


ToFollower = (
    Begin | Join | LoadShard | Pack | Compare | OpenCache | Step | PlaceLinear | PlaceAdapter | ClearSlot
)  # fmt: skip
ToLeader = Done | RankFailed
