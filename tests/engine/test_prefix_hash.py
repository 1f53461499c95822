"""Block hashes name everything that keys and values depend on, and seeds nothing they should not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ift_serve.engine.cache.prefix_hash import extend_digests, root_digest
from ift_serve.engine.sequences.seeds import candidate_seed

TOKENS = st.lists(st.integers(0, 1 << 30), min_size=8, max_size=40)


def chain(tokens: list[int], segments: bytes = b"", key: str = "") -> list[bytes]:
    digests: list[bytes] = []
    extend_digests(digests, root_digest(key), tokens, segments, 4, len(tokens) // 4)
    return digests


@given(tokens=TOKENS, cut=st.integers(0, 9))
def test_a_chain_does_not_depend_on_how_it_was_extended(tokens: list[int], cut: int) -> None:
    digests: list[bytes] = []
    blocks = len(tokens) // 4
    for upto in (min(cut, blocks), blocks):
        extend_digests(digests, root_digest(""), tokens, b"", 4, upto)
    assert digests == chain(tokens)


@given(tokens=TOKENS, data=st.data())
def test_a_changed_token_changes_its_block_and_all_after_it(tokens: list[int], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(tokens) // 4 * 4 - 1))
    changed = [*tokens[:place], tokens[place] + 1, *tokens[place + 1 :]]
    before, after = chain(tokens), chain(changed)
    assert before[: place // 4] == after[: place // 4]
    assert all(a != b for a, b in zip(before[place // 4 :], after[place // 4 :], strict=True))


def test_segments_matter_only_when_they_are_given() -> None:
    tokens = list(range(8))
    assert chain(tokens, bytes(8)) != chain(tokens, bytes([0] * 7 + [1]))
    assert chain(tokens, bytes(8))[0] == chain(tokens, bytes([0] * 7 + [1]))[0]


def test_keys_share_nothing() -> None:
    assert not set(chain(list(range(8)), key="a")) & set(chain(list(range(8)), key="b"))


def test_seeds_of_candidates_and_of_neighbouring_requests_differ() -> None:
    seeds = {candidate_seed(seed, ordinal) for seed in range(100) for ordinal in range(100)}
    assert len(seeds) == 100 * 100
    assert all(0 <= seed < 1 << 64 for seed in seeds)
    assert candidate_seed(-1, 0) == candidate_seed((1 << 64) - 1, 0)
