"""Owns the cache blocks: who refers to each, which hold a known prefix, which are free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class OutOfBlocksError(RuntimeError):
    """No block is free or can be evicted. The scheduler checks first, so this is a bug."""


class BlockManager:
    """Reference-counted blocks with reuse by content.

    A block is *used* (some table refers to it), *cached* (no table does, but its content has a published
    hash and can be taken up again) or *free*. Cached blocks are evicted least recently released first.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._references = [0] * total
        self._digests: list[bytes | None] = [None] * total
        self._block_of: dict[bytes, int] = {}
        self._free = list(range(total - 1, -1, -1))
        self._cached: dict[int, None] = {}

    @property
    def available(self) -> int:
        """Blocks that ``allocate`` can hand out."""
        return len(self._free) + len(self._cached)

    @property
    def free(self) -> int:
        """Blocks that hold nothing."""
        return len(self._free)

    @property
    def cached(self) -> int:
        """Blocks that hold a prefix nobody uses now."""
        return len(self._cached)

    def allocate(self) -> int:
        """A block for the caller alone; evicts the oldest cached one when none is free."""
        if self._free:
            block = self._free.pop()
        elif self._cached:
            block = next(iter(self._cached))
            del self._cached[block]
            self._forget(block)
        else:
            raise OutOfBlocksError(f"all {self.total} blocks are in use")
        self._references[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more reference to a used or cached block."""
        if self._references[block] == 0:
            del self._cached[block]
        self._references[block] += 1

    def release(self, block: int) -> None:
        """One reference less. Without any, a published block stays cached and any other is free."""
        self._references[block] -= 1
        if self._references[block] == 0:
            if self._digests[block] is None:
                self._free.append(block)
            else:
                self._cached[block] = None

    def release_all(self, table: list[int]) -> None:
        """Release and empty a table, last block first: a prefix is evicted from its far end."""
        while table:
            self.release(table.pop())

    def is_writable(self, block: int) -> bool:
        """Whether one table alone refers to the block and nobody can find it by its content."""
        return self._references[block] == 1 and self._digests[block] is None

    def publish(self, block: int, digest: bytes) -> None:
        """Make a full, computed block findable. The first block of a content wins; others stay private."""
        if self._digests[block] is None and digest not in self._block_of:
            self._digests[block] = digest
            self._block_of[digest] = block

    def match(self, digests: Sequence[bytes]) -> list[int]:
        """Blocks of the longest known prefix of the chain. Takes no references."""
        block_of = self._block_of
        found = []
        for digest in digests:
            block = block_of.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def unreferenced(self, blocks: Iterable[int]) -> int:
        """How many of the blocks are merely cached: sharing them makes that many fewer available."""
        return sum(self._references[block] == 0 for block in blocks)

    def forget_all(self) -> None:
        """Drop every published prefix, as after a failed step whose writes cannot be trusted."""
        self._free += self._cached
        self._cached.clear()
        self._block_of.clear()
        self._digests = [None] * self.total

    def _forget(self, block: int) -> None:
        digest = self._digests[block]
        if digest is not None:
            del self._block_of[digest]
            self._digests[block] = None

    def check_integrity(self, tables: Iterable[list[int]]) -> None:
        """Raise AssertionError unless counts equal the tables' references and each block is in one place."""
        expected = [0] * self.total
        for table in tables:
            for block in table:
                expected[block] += 1
        # Tests ask after every step: what holds is found without a look at each block by itself.
        if self._references != expected:
            block = next(b for b in range(self.total) if self._references[b] != expected[b])
            raise AssertionError(f"block {block}: {self._references[block]} references, {expected[block]} in tables")
        used = [block for block, count in enumerate(expected) if count]
        places = sorted([*self._free, *self._cached, *used])
        assert places == list(range(self.total)), "blocks are lost or in two places"
        digest_of = self._digests.__getitem__
        assert None not in map(digest_of, self._cached), "a cached block has no hash"
        assert not any(map(digest_of, self._free)), "a free block has a hash"
        for digest, block in self._block_of.items():
            assert self._digests[block] == digest, f"block {block} is found under a foreign hash"
        published = self.total - self._digests.count(None)
        assert published == len(self._block_of), "a published block cannot be found"
