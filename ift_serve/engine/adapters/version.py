"""One version of an adapter, and what the engine must know of it."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from ift_serve.engine.cache.prefix_hash import root_digest
from ift_serve.engine.protocol.adapter import AdapterInfo, AdapterState, LoadAdapter

_INSTRUCTION = 1


@dataclass(frozen=True, slots=True)
class AdapterMetadata:
    """What the engine must know of an adapter that was read.

    ``shares_cache``: keys and values are the base model's. ``uses_segments``: they depend on the prompt's segments;
    ``uses_instruction``: on its whole instruction. ``end_ids``: tokens that end its answers, beside the base model's.
    ``trained_on``: families and checks, as its directory names them.
    ``calibration``: what logits are divided by before confidences are read off them; None: nothing was fitted.
    ``independent_rows``: what it does to a row is the same, bit for bit, in any batch.
    ``signed_as``: the only name that its signature lets it have; empty: any. ``signed_files``: those that the signature
    is of, with its own; empty where none was asked for.
    """

    version: str
    rank: int
    components: list[str]
    bytes: int
    shares_cache: bool
    uses_segments: bool
    uses_instruction: bool
    end_ids: tuple[int, ...] = ()
    trained_on: tuple[str, ...] = ()
    calibration: float | None = None
    independent_rows: bool = False
    signed_as: str = ""
    signed_files: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class AdapterVersion:
    """One version of an adapter.

    ``source``: the load that it came of, by which it is read again. ``state``: moved by the registry alone.
    ``is_resident``: its tensors are in host memory. ``users``: requests that were accepted and have not ended;
    ``running``: those of them that hold ``slot``, its place on the device, 0 while it has none. ``deadline``: when its
    time to drain ends.
    """

    name: str
    source: LoadAdapter
    metadata: AdapterMetadata
    state: AdapterState = AdapterState.READY
    is_resident: bool = False
    users: int = 0
    slot: int = 0
    running: int = 0
    deadline: float | None = None

    @property
    def key(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.metadata.version}"

    def info(self, message: str = "") -> AdapterInfo:
        """For clients."""
        metadata = self.metadata
        return AdapterInfo(
            name=self.name,
            version=metadata.version,
            state=self.state,
            path=self.source.shown_path,
            components=metadata.components,
            rank=metadata.rank,
            bytes=metadata.bytes,
            in_flight=self.users,
            message=message,
            trained_on=list(metadata.trained_on),
        )

    def cache_root(self, token_ids: list[int], segment_ids: bytes) -> bytes:
        """The root of the prompt's block hashes: no two versions share a prefix; heads alone share the base's."""
        if self.metadata.shares_cache:
            return root_digest("")
        instruction = b""
        if self.metadata.uses_instruction:
            ids = [t for t, segment in zip(token_ids, segment_ids, strict=False) if segment == _INSTRUCTION]
            instruction = blake2b(repr(ids).encode(), digest_size=16).digest()
        return root_digest(f"{self.key}/{instruction.hex()}")
