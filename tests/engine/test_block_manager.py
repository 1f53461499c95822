"""The block manager: reuse by content, eviction, and that no sequence of operations loses a block."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from ift_serve.engine.cache.block_manager import BlockManager, OutOfBlocksError


def digest(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_released_block_without_hash_is_free_again() -> None:
    blocks = BlockManager(2)
    block = blocks.allocate()
    blocks.release(block)
    assert (blocks.free, blocks.cached) == (2, 0)


def test_published_block_is_found_after_release_and_taken_up_again() -> None:
    blocks = BlockManager(2)
    block = blocks.allocate()
    blocks.publish(block, digest(1))
    blocks.release(block)
    assert blocks.match([digest(1), digest(2)]) == [block]
    assert blocks.unreferenced([block]) == 1
    blocks.share(block)
    assert (blocks.available, blocks.unreferenced([block])) == (1, 0)


def test_a_match_ends_at_the_first_unknown_block() -> None:
    blocks = BlockManager(3)
    for number in (1, 3):
        blocks.publish(blocks.allocate(), digest(number))
    assert len(blocks.match([digest(1), digest(2), digest(3)])) == 1


def test_least_recently_released_block_is_evicted_first() -> None:
    blocks = BlockManager(2)
    first, second = blocks.allocate(), blocks.allocate()
    blocks.publish(first, digest(1))
    blocks.publish(second, digest(2))
    blocks.release(second)
    blocks.release(first)
    assert blocks.allocate() == second
    assert blocks.match([digest(2)]) == []
    assert blocks.match([digest(1)]) == [first]


def test_a_prefix_is_evicted_from_its_far_end() -> None:
    blocks = BlockManager(3)
    table = [blocks.allocate() for _ in range(3)]
    for number, block in enumerate(table):
        blocks.publish(block, digest(number))
    chain = [digest(number) for number in range(3)]
    blocks.release_all(table)
    assert table == []
    blocks.allocate()
    assert len(blocks.match(chain)) == 2


def test_equal_content_computed_twice_keeps_the_first_block() -> None:
    blocks = BlockManager(2)
    first, second = blocks.allocate(), blocks.allocate()
    blocks.publish(first, digest(1))
    blocks.publish(second, digest(1))
    blocks.release(second)
    assert blocks.match([digest(1)]) == [first]
    assert blocks.free == 1


def test_running_out_is_an_error_of_its_own() -> None:
    blocks = BlockManager(1)
    blocks.allocate()
    with pytest.raises(OutOfBlocksError):
        blocks.allocate()


def test_forgetting_everything_leaves_used_blocks_in_use() -> None:
    blocks = BlockManager(3)
    used, cached = blocks.allocate(), blocks.allocate()
    blocks.publish(used, digest(1))
    blocks.publish(cached, digest(2))
    blocks.release(cached)
    blocks.forget_all()
    blocks.check_integrity([[used]])
    assert blocks.match([digest(1)]) == blocks.match([digest(2)]) == []
    assert blocks.free == 2


class Tables(RuleBasedStateMachine):
    """Any tables that take, share, publish and release blocks."""

    tables = Bundle("tables")

    def __init__(self) -> None:
        super().__init__()
        self.blocks = BlockManager(6)
        self.held: list[list[int]] = []

    @rule(target=tables)
    def new_table(self) -> list[int]:
        table: list[int] = []
        self.held.append(table)
        return table

    @precondition(lambda self: self.blocks.available > 0)
    @rule(table=tables)
    def allocate(self, table: list[int]) -> None:
        before = self.blocks.available
        table.append(self.blocks.allocate())
        assert self.blocks.available == before - 1

    @rule(target=tables, table=tables)
    def fork(self, table: list[int]) -> list[int]:
        for block in table:
            self.blocks.share(block)
        child = list(table)
        self.held.append(child)
        return child

    @rule(table=tables, number=st.integers(0, 5))
    def publish(self, table: list[int], number: int) -> None:
        if table:
            self.blocks.publish(table[-1], digest(number))

    @rule(target=tables, numbers=st.lists(st.integers(0, 5), max_size=4, unique=True))
    def take_up(self, numbers: list[int]) -> list[int]:
        table = self.blocks.match([digest(number) for number in numbers])
        merely_cached = self.blocks.unreferenced(table)
        before = self.blocks.available
        for block in table:
            self.blocks.share(block)
        assert self.blocks.available == before - merely_cached
        self.held.append(table)
        return table

    @rule(table=consumes(tables))
    def release(self, table: list[int]) -> None:
        self.held = [other for other in self.held if other is not table]
        self.blocks.release_all(table)

    @rule()
    def forget_all(self) -> None:
        self.blocks.forget_all()

    @invariant()
    def nothing_is_lost(self) -> None:
        self.blocks.check_integrity(self.held)
        used = {block for table in self.held for block in table}
        assert self.blocks.available == 6 - len(used)


TestTables = Tables.TestCase
TestTables.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
