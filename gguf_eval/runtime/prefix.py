"""Plans which tokens are decoded when, so that a prefix shared by many sequences is decoded once.

Sequences are sorted, which makes them the leaves of a trie in depth-first order: what a sequence shares with the one
before it is already decoded. `plan_batches` cuts the nodes into batches of exactly ``batch_size`` tokens. Between two
batches only the path that the next sequence continues (the trunk) stays in the key-value cache: sorted order guarantees
that no later sequence needs more. That takes a plain cache of keys and values, where any prefix of a sequence can be
shared and kept; for other memories see `gguf_eval.runtime.branches`. This module is pure: it knows tokens, never a
model.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Copy:
    """A sequence that begins as a copy of another."""

    source: int
    target: int
    length: int
    """Leading positions of ``source`` that it shares; they are in the cache before the batch."""


@dataclass(frozen=True)
class Batch:
    """One decode of ``n`` tokens of the trie."""

    tokens: Tokens
    positions: Tokens
    sequences: tuple[tuple[int, ...], ...]
    """For each token, the sequence ids that pass through it."""
    nodes: Tokens
    """For each token its node of the trie, or -1 where it is decoded again, for another path through it."""
    copies: tuple[Copy, ...]
    """Made before the decode."""
    keep: tuple[int, int] | None = None
    """(sequence, length): all that stays in the cache after the decode, the next batch's trunk; None for ``drop``."""
    drop: tuple[int, ...] = ()
    """Sequences that are forgotten after the decode."""


@dataclass(frozen=True)
class Trie:
    """Unique prefixes of all sequences, in depth-first order.

    tokens, positions: one entry a node. leaves: paths that no later path extends, as (first own node, length, shared):
    the leaf's positions from ``shared`` on are the nodes from ``first own node`` on.
    """

    tokens: Tokens
    positions: Tokens
    leaf_start: npt.NDArray[np.int64]
    leaf_length: npt.NDArray[np.int64]
    leaf_shared: npt.NDArray[np.int64]

    @property
    def size(self) -> int:
        """Number of nodes: tokens that must be decoded."""
        return len(self.tokens)


def shared_length(first: Tokens, second: Tokens) -> int:
    """Length of the longest common prefix."""
    size = min(len(first), len(second))
    different = np.flatnonzero(first[:size] != second[:size])
    return int(different[0]) if len(different) else size


def build_trie(sequences: Sequence[Tokens]) -> tuple[Trie, list[Tokens]]:
    """Build the trie of ``sequences``; also return, for each sequence, the node of each of its positions."""
    order = sorted(range(len(sequences)), key=lambda i: sequences[i].astype(">i4").tobytes())
    paths: list[Tokens] = [np.empty(0, np.int32)] * len(sequences)
    tokens: list[Tokens] = []
    positions: list[Tokens] = []
    leaves: list[tuple[int, int, int]] = []
    size = 0
    previous = np.empty(0, np.int32)
    path = np.empty(0, np.int32)
    for index in order:
        current = sequences[index]
        shared = shared_length(previous, current)
        own = len(current) - shared
        path = np.concatenate([path[:shared], np.arange(size, size + own, dtype=np.int32)])
        paths[index] = path
        if own:
            if leaves and shared == len(previous):  # extends the leaf before it: one path, not two
                start, length, before = leaves.pop()
                leaves.append((start, length + own, before))
            else:
                leaves.append((size, len(current), shared))
            tokens.append(current[shared:])
            positions.append(np.arange(shared, len(current), dtype=np.int32))
            size += own
        previous = current
    starts, lengths, shares = (np.array(column, np.int64) for column in zip(*leaves, strict=True))
    trie = Trie(np.concatenate(tokens), np.concatenate(positions), starts, lengths, shares)
    return trie, paths


def plan_batches(trie: Trie, batch_size: int, max_sequences: int) -> Iterator[Batch]:
    """Cut the trie into batches of ``batch_size`` tokens and at most ``max_sequences`` sequences.

    The first leaf of a batch continues the trunk, which is ``keep`` of the batch before (sequence 0, empty, at first).
    """
    ends = trie.leaf_start + trie.leaf_length - trie.leaf_shared
    node, leaf = 0, 0
    trunk: tuple[int, int] = (0, 0)
    while node < trie.size:
        last = min(int(np.searchsorted(ends, node + batch_size)), len(ends) - 1, leaf + max_sequences - 1)
        stop = min(node + batch_size, int(ends[last]))
        batch = _cut(trie, range(node, stop), range(leaf, last + 1), trunk, max_sequences)
        yield batch
        node, trunk = stop, batch.keep or trunk
        leaf = last + 1 if stop == ends[last] else last


def _cut(trie: Trie, nodes: range, leaves: range, trunk: tuple[int, int], max_sequences: int) -> Batch:
    """Assign a sequence to every leaf that passes through ``nodes``."""
    trunk_sequence, base = trunk  # base: positions below it are in the cache, from it on in this batch
    free = [i for i in range(max_sequences) if i != trunk_sequence]
    members: list[list[int]] = [[] for _ in nodes]
    path: list[int] = []  # the current leaf's nodes in this batch, the first at position base
    copies: list[Copy] = []
    sequence = trunk_sequence
    length = 0
    for leaf in leaves:
        start, shared = int(trie.leaf_start[leaf]), int(trie.leaf_shared[leaf])
        end = min(start + int(trie.leaf_length[leaf]) - shared, nodes.stop)
        if leaf != leaves.start:
            base = min(base, shared)
            path = path[: shared - base]
            sequence = free[leaf - leaves.start - 1]
            if base:
                copies.append(Copy(trunk_sequence, sequence, base))
        path += range(max(start, nodes.start), end)
        length = shared + end - start
        for node in path:
            members[node - nodes.start].append(sequence)
    finished = length == trie.leaf_length[leaves[-1]]
    if finished:
        length = int(trie.leaf_shared[leaves.stop]) if leaves.stop < len(trie.leaf_shared) else 0
    return Batch(
        tokens=trie.tokens[nodes.start : nodes.stop],
        positions=trie.positions[nodes.start : nodes.stop],
        sequences=tuple(tuple(ids) for ids in members),
        nodes=np.arange(nodes.start, nodes.stop, dtype=np.int32),
        copies=tuple(copies),
        keep=(sequence, length),
    )


def held_prefixes(prompts: Sequence[Tokens], *, worth: int, most: int) -> list[tuple[int, ...]]:
    """For each of sorted prompts the lengths of its prefixes that are held while it is decoded, shortest first.

    Held is what later prompts continue: at most ``most`` prefixes of ``worth`` tokens more than the one before. What is
    held is only ever dropped or copied, never cut. A prompt's last token is always its own: its logits are read.
    """
    shared = [min(shared_length(a, b), len(a) - 1, len(b) - 1) for a, b in itertools.pairwise(prompts)]
    later: list[tuple[int, ...]] = []
    falling: tuple[int, ...] = ()  # what this prompt shares with ever later ones, shortest first
    for length in reversed([*shared, 0]):
        falling = (*(shorter for shorter in falling if shorter < length), length)
        later.append(falling)
    plan: list[tuple[int, ...]] = []
    held: tuple[int, ...] = ()
    for before, wanted in zip([0, *shared], reversed(later), strict=True):
        held = tuple(length for length in held if length <= before)
        for length in wanted:
            if len(held) < most and length - (held[-1] if held else 0) >= worth:
                held = (*held, length)
        plan.append(held)
    return plan
