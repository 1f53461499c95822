"""Finds several patterns at once in a stream of symbols, in time linear in the stream."""

from __future__ import annotations

from collections.abc import Container, Sequence


class PatternMatcher:
    """Aho and Corasick's automaton ("Efficient string matching", 1975).

    A node stands for the longest end of what was read that begins a pattern; node 0 is the empty one.
    ``depth[node]``: length of that end in symbols. ``accepted[node]``: index of the longest pattern that ends there,
    -1 where none does.
    """

    def __init__(self, patterns: Sequence[Sequence[int]]) -> None:
        self._children: list[dict[int, int]] = [{}]
        self._fail = [0]
        self._owners: list[set[int]] = [set()]
        self.depth = [0]
        self.accepted = [-1]
        for index, pattern in enumerate(patterns):
            self._insert(index, pattern)
        self._link()

    def _insert(self, index: int, pattern: Sequence[int]) -> None:
        node = 0
        for symbol in pattern:
            child = self._children[node].get(symbol)
            if child is None:
                child = self._children[node][symbol] = len(self.depth)
                self._children.append({})
                self._fail.append(0)
                self._owners.append(set())
                self.depth.append(self.depth[node] + 1)
                self.accepted.append(-1)
            node = child
            self._owners[node].add(index)
        if self.accepted[node] < 0:
            self.accepted[node] = index

    def _link(self) -> None:
        """The failure links, breadth first: a link leads to a node that is less deep."""
        level = list(self._children[0].values())
        while level:
            following = []
            for node in level:
                if self.accepted[node] < 0:
                    self.accepted[node] = self.accepted[self._fail[node]]
                for symbol, child in self._children[node].items():
                    self._fail[child] = self.step(self._fail[node], symbol)
                    following.append(child)
            level = following

    def step(self, node: int, symbol: int) -> int:
        """The node after one more symbol; over a whole stream, a constant number of operations a symbol."""
        children = self._children
        while node and symbol not in children[node]:
            node = self._fail[node]
        return children[node].get(symbol, 0)

    def partial(self, node: int, patterns: Container[int]) -> tuple[int, int]:
        """Which of ``patterns`` the longest end of what was read begins, and how many symbols of it are there.

        (-1, 0) where no end begins one of them.
        """
        while node:
            for index in sorted(self._owners[node]):
                if index in patterns:
                    return index, self.depth[node]
            node = self._fail[node]
        return -1, 0
