"""Owns which blocks each sequence has: prefixes taken up, tables grown, forked, copied on write, released."""

from __future__ import annotations

from collections.abc import Iterable

from ift_serve.engine.cache.block_manager import BlockManager
from ift_serve.engine.sequences.sequence import Sequence


class BlockTables:
    """The block tables of all sequences over one ``BlockManager``.

    ``copies`` are the whole-block copies (source, destination) that the step being planned needs. All sources
    are read before any destination is written. With ``reuse``, full blocks can be found by their content as
    soon as they are computed.
    """

    def __init__(self, total_blocks: int, block_size: int, reuse: bool) -> None:
        self.blocks = BlockManager(total_blocks)
        self.copies: list[tuple[int, int]] = []
        self._block_size = block_size
        self._reuse = reuse
        self._claims: set[bytes] = set()

    def begin_step(self) -> None:
        """Plan a new step."""
        self.copies = []
        self._claims.clear()

    def hits(self, sequence: Sequence) -> list[int]:
        """Cached blocks that a sequence without blocks can begin with, up to the first token it must compute."""
        if not self._reuse or sequence.table:
            return []
        limit = sequence.first_required // self._block_size
        return self.blocks.match(sequence.extend_digests(limit, self._block_size))

    def claim(self, sequence: Sequence, start: int, end: int) -> None:
        """This step computes positions ``start .. end-1``: the blocks it fills need not be computed by others."""
        if self._reuse:
            digests = sequence.extend_digests(end // self._block_size, self._block_size)
            self._claims.update(digests[start // self._block_size :])

    def is_being_computed(self, sequence: Sequence, hits: int) -> bool:
        """Whether this step computes the block after the cached ones for another sequence."""
        if not self._claims or sequence.table or hits >= sequence.first_required // self._block_size:
            return False
        return sequence.digests[hits] in self._claims

    def left_over(self, sequence: Sequence, hits: list[int]) -> int:
        """Blocks still available, less than 0 if too few, once the sequence has all that its tokens need."""
        held = len(sequence.table) or len(hits)
        needed = max(0, -(-sequence.goal // self._block_size) - held) + self.must_copy_tail(sequence)
        return self.blocks.available - self.blocks.unreferenced(hits) - needed

    def take_up(self, sequence: Sequence, hits: list[int]) -> None:
        """Give a sequence its cached blocks, and new ones for the rest of its tokens."""
        if not sequence.table and hits:
            for block in hits:
                self.blocks.share(block)
            sequence.table += hits
            sequence.computed = sequence.capacity = len(hits) * self._block_size
            sequence.published = len(hits)
        while sequence.goal > sequence.capacity:
            self.append(sequence)

    def append(self, sequence: Sequence) -> None:
        """One more block. There must be one."""
        sequence.table.append(self.blocks.allocate())
        sequence.capacity += self._block_size

    def capacity_with(self, sequence: Sequence, blocks: int) -> int:
        """Tokens that a sequence would have place for with so many blocks more."""
        return sequence.capacity + blocks * self._block_size

    def must_copy_tail(self, sequence: Sequence) -> bool:
        """Whether the partial block that the sequence writes next is not its own to write."""
        if sequence.may_share_tail:
            index, used = divmod(sequence.computed, self._block_size)
            sequence.may_share_tail = used > 0 and not self.blocks.is_writable(sequence.table[index])
        return sequence.may_share_tail

    def copy_tail(self, sequence: Sequence) -> None:
        """Replace the shared partial block by a copy of its own. There must be a block for it."""
        index = sequence.computed // self._block_size
        source, target = sequence.table[index], self.blocks.allocate()
        self.copies.append((source, target))
        self.blocks.release(source)
        sequence.table[index] = target
        sequence.may_share_tail = False

    def share(self, parent: Sequence, child: Sequence) -> None:
        """Give ``child``, which has none, the blocks of what is computed of ``parent`` and need not be computed again.

        What it must compute again is what its next draw or score follows from: ``first_required`` and on.
        """
        computed = min(parent.computed, child.first_required)
        used = -(-computed // self._block_size)
        child.table += parent.table[:used]
        for block in child.table:
            self.blocks.share(block)
        full = computed // self._block_size
        child.computed = computed
        child.published = min(parent.published, full)
        del child.digests[full:]
        child.capacity = used * self._block_size
        if computed % self._block_size:
            parent.may_share_tail = child.may_share_tail = True

    def advance(self, sequence: Sequence, computed: int) -> None:
        """A step has computed the sequence up to ``computed``: its full blocks can be found from now on."""
        sequence.computed = computed
        full = computed // self._block_size
        if full > sequence.published:
            if self._reuse:
                digests = sequence.extend_digests(full, self._block_size)
                for index in range(sequence.published, full):
                    self.blocks.publish(sequence.table[index], digests[index])
            sequence.published = full

    def release(self, sequence: Sequence) -> None:
        """Take all blocks of a sequence, and with them the copies planned for it."""
        if self.copies:
            held = set(sequence.table)
            self.copies = [pair for pair in self.copies if pair[1] not in held]
        self.blocks.release_all(sequence.table)
        sequence.forget_computed()

    def check_integrity(self, resident: Iterable[Sequence]) -> None:
        """Raise AssertionError unless blocks and the tables of all sequences that hold any agree. For tests."""
        sequences = list(resident)
        self.blocks.check_integrity([sequence.table for sequence in sequences])
        for sequence in sequences:
            assert sequence.capacity == len(sequence.table) * self._block_size
            assert sequence.computed <= min(sequence.capacity, len(sequence.tokens))
