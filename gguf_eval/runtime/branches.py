"""The same plan for memories that can't be cut: recurrent states, and caches whose layers forget what left a window.

There a sequence can only go on, or be copied as a whole. So nothing that others continue is advanced or cut: where
paths of the trie part, one sequence holds what they share, every child starts as a copy of it with tokens of its own,
and the last child takes the sequence over. No token is in two sequences.

A batch is filled with stretches of many paths. That needs sequences and cells for all of them at once; `plan_branches`
admits a stretch only while what is left suffices for everything below it, taken depth first. By induction over the
order of admission all that was admitted before can be finished too: whoever came later gives back what it took.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from gguf_eval.runtime.prefix import Batch, Copy, Tokens, Trie


@dataclass(eq=False)
class Stretch:
    """A run of the trie without a branch: from one point where paths part to the next, or to a leaf."""

    nodes: Tokens
    again: int = 0
    """How many of the first nodes are decoded for other stretches too, and read there."""
    children: list[Stretch] = field(default_factory=list)
    sequences_below: int = 0
    """Sequences needed beside its own to finish its children depth first."""
    cells_below: int = 0
    """Cells needed beside its own for the same."""


def stretches(trie: Trie, max_sequences: int) -> list[Stretch]:
    """Cut the trie at its branches; return the roots, each of which ``max_sequences`` suffice for.

    Where they would not, branches are dissolved: what was shared is decoded for every child.
    """
    top = Stretch(np.empty(0, np.int32))
    path: list[tuple[int, Stretch]] = [(0, top)]  # each with the position it begins at
    for first, length, shared in zip(
        trie.leaf_start.tolist(), trie.leaf_length.tolist(), trie.leaf_shared.tolist(), strict=True
    ):
        while len(path) > 1 and path[-1][0] >= shared:
            path.pop()
        begin, parent = path[-1]
        if shared - begin < len(parent.nodes):
            parent.children = [Stretch(parent.nodes[shared - begin :], children=parent.children)]
            parent.nodes = parent.nodes[: shared - begin]
        child = Stretch(np.arange(first, first + length - shared, dtype=np.int32))
        parent.children.append(child)
        path.append((shared, child))
    _size_up(top, max_sequences - 1)
    return top.children


def _size_up(top: Stretch, most_below: int) -> None:
    """Work out what every stretch needs, children before parents, and dissolve what needs too much."""
    order, waiting = [], [top]
    while waiting:
        stretch = waiting.pop()
        order.append(stretch)
        waiting += stretch.children
    for stretch in reversed(order):
        children: list[Stretch] = []
        for child in stretch.children:
            children += _dissolved(child) if child.sequences_below > most_below else [child]
        children.sort(key=lambda child: child.sequences_below)  # the last one needs no copy: the neediest
        stretch.children = children
        if children:
            copied = max((1 + child.sequences_below for child in children[:-1]), default=0)
            stretch.sequences_below = max(copied, children[-1].sequences_below)
            stretch.cells_below = max(len(child.nodes) + child.cells_below for child in children)


def _dissolved(stretch: Stretch) -> list[Stretch]:
    """Its children, each with the shared nodes before its own."""
    reader = next(child for child in stretch.children if not child.again)
    for child in stretch.children:
        child.again = 0 if child is reader else len(stretch.nodes) + child.again
        child.nodes = np.concatenate([stretch.nodes, child.nodes])
    return stretch.children


@dataclass(eq=False)
class _Running:
    """A stretch that is being decoded."""

    stretch: Stretch
    sequence: int
    start: int
    """Position of its first token."""
    cells: int
    """Of its sequence that nothing else will free."""
    done: int = 0


@dataclass(eq=False)
class _Held:
    """A sequence at a branch, and how many children are still to leave from it."""

    sequence: int
    length: int
    cells: int
    left: int


def plan_branches(trie: Trie, batch_size: int, max_sequences: int, cells: int) -> Iterator[Batch]:
    """Cut the trie into batches of at most ``batch_size`` tokens for ``max_sequences`` sequences and ``cells`` cells.

    ``cells`` must hold the longest path.
    """
    waiting: list[tuple[Stretch, _Held | None]] = [(root, None) for root in reversed(stretches(trie, max_sequences))]
    running: list[_Running] = []
    free = deque(range(max_sequences))
    while waiting or running:
        copies: list[Copy] = []
        room = batch_size - sum(min(batch_size, len(run.stretch.nodes) - run.done) for run in running)
        while waiting and room > 0:
            stretch, held = waiting[-1]
            takes_over = held is not None and held.left == 1
            if len(free) - (not takes_over) < stretch.sequences_below:
                break
            if cells - len(stretch.nodes) < stretch.cells_below:
                break
            waiting.pop()
            cells -= len(stretch.nodes)
            running.append(_admit(stretch, held, free, copies))
            room -= len(stretch.nodes)
        batch, finished = _fill(trie, running, batch_size, copies)
        running = [run for run in running if run not in finished]
        for run in finished:
            children = run.stretch.children
            if children:
                held = _Held(run.sequence, run.start + run.done, run.cells, len(children))
                waiting += [(child, held) for child in reversed(children)]
            else:
                cells += run.cells
                free.append(run.sequence)
        yield batch


def _admit(stretch: Stretch, held: _Held | None, free: deque[int], copies: list[Copy]) -> _Running:
    """Give a stretch its sequence: an empty one, a copy of what it continues, or that itself for the last child."""
    own = len(stretch.nodes)
    if held is None:
        return _Running(stretch, free.popleft(), 0, own)
    held.left -= 1
    if held.left == 0:
        return _Running(stretch, held.sequence, held.length, own + held.cells)
    copies.append(Copy(held.sequence, free.popleft(), held.length))
    return _Running(stretch, copies[-1].target, held.length, own)


def _fill(trie: Trie, running: list[_Running], batch_size: int, copies: list[Copy]) -> tuple[Batch, list[_Running]]:
    """Take the next tokens of what is running, oldest first; return the batch and what it finishes."""
    decoded, nodes, positions, sequences = [], [], [], []
    drop, finished = [], []
    room = batch_size
    for run in running:
        begin, end = run.done, min(len(run.stretch.nodes), run.done + room)
        if begin == end:
            continue
        part = run.stretch.nodes[begin:end]
        decoded.append(part)
        nodes.append(np.where(np.arange(begin, end) < run.stretch.again, -1, part))
        positions.append(np.arange(run.start + begin, run.start + end))
        sequences += [(run.sequence,)] * (end - begin)
        room -= end - begin
        run.done = end
        if end == len(run.stretch.nodes):
            finished.append(run)
            if not run.stretch.children:
                drop.append(run.sequence)
    batch = Batch(
        tokens=trie.tokens[np.concatenate(decoded)],
        positions=np.concatenate(positions).astype(np.int32),
        sequences=tuple(sequences),
        nodes=np.concatenate(nodes).astype(np.int32),
        copies=tuple(copies),
        drop=tuple(drop),
    )
    return batch, finished
