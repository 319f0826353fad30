"""Planning for memories that can't be cut, carried out on a model of such a memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_prefix import arrays, node_paths, with_headers

from gguf_eval.runtime.branches import plan_branches
from gguf_eval.runtime.prefix import Batch, build_trie


class States:
    """A state for each sequence, which can be advanced, copied as a whole, and forgotten; and cells that are shared."""

    def __init__(self, max_sequences: int) -> None:
        self.max_sequences = max_sequences
        self.held: dict[int, tuple[int, ...]] = {}

    def run(self, batch: Batch) -> Iterator[tuple[int, ...]]:
        """Carry out a batch; yields for each of its tokens what its sequence has seen, itself last."""
        for copy in batch.copies:
            assert copy.target not in self.held, "a copy goes into an empty sequence"
            assert len(self.held[copy.source]) == copy.length, "only the whole can be copied"
            self.held[copy.target] = self.held[copy.source]
        order = [ids for i, ids in enumerate(batch.sequences) if i == 0 or batch.sequences[i - 1] != ids]
        assert len(order) == len(set(order)), "the tokens of a sequence stand together"
        for token, position, ids in zip(batch.tokens.tolist(), batch.positions.tolist(), batch.sequences, strict=True):
            (sequence,) = ids
            assert 0 <= sequence < self.max_sequences
            seen = self.held.get(sequence, ())
            assert position == len(seen), "positions of a sequence must be consecutive"
            self.held[sequence] = (*seen, token)
            yield self.held[sequence]
        assert batch.keep is None
        for sequence in batch.drop:
            del self.held[sequence]

    def cells(self) -> int:
        """Different prefixes that are held, each of which is a cell."""
        return len({state[:n] for state in self.held.values() for n in range(1, len(state) + 1)})


@settings(max_examples=300)
@given(
    sequences=with_headers(),
    batch_size=st.integers(1, 9) | st.sampled_from([16, 64]),
    max_sequences=st.integers(1, 5) | st.just(64),
    spare=st.integers(0, 20),
)
def test_every_node_is_read_once_after_exactly_its_prefix(
    sequences: list[list[int]], batch_size: int, max_sequences: int, spare: int
) -> None:
    trie, paths = build_trie(arrays(sequences))
    spelt = node_paths(trie, paths)
    cells = max(map(len, sequences)) + spare
    states = States(max_sequences)
    read = []
    for batch in plan_branches(trie, batch_size, max_sequences, cells):
        assert 0 < len(batch.tokens) <= batch_size
        for node, seen in zip(batch.nodes.tolist(), states.run(batch), strict=True):
            if node >= 0:
                read.append(node)
                assert seen == spelt[node]
        assert states.cells() <= cells
    assert sorted(read) == list(range(trie.size))
    assert not states.held


@given(with_headers())
def test_with_sequences_to_spare_nothing_is_decoded_again(sequences: list[list[int]]) -> None:
    trie, _ = build_trie(arrays(sequences))
    batches = list(plan_branches(trie, 64, 64, 10_000))
    assert sum(len(batch.tokens) for batch in batches) == trie.size


def test_two_sequences_suffice_for_prefixes_within_prefixes() -> None:
    prompts = [[1] * length + [2] for length in range(1, 30)]
    trie, _ = build_trie(arrays(prompts))
    batches = list(plan_branches(trie, 512, 2, 64))
    assert sum(len(batch.tokens) for batch in batches) == trie.size


@pytest.mark.parametrize(
    ("max_sequences", "decoded"), [(1, 16 * 4), (2, 8 * 3 + 16), (3, 4 * 2 + 8 + 16), (4, 2 + 4 + 8 + 16)]
)
def test_too_few_sequences_cost_tokens_never_answers(max_sequences: int, decoded: int) -> None:
    # A complete binary tree of depth 4: each sequence less has one more level decoded for every child below it.
    prompts = [[n >> 3 & 1, n >> 2 & 1, n >> 1 & 1, n & 1] for n in range(16)]
    trie, _ = build_trie(arrays(prompts))
    assert sum(len(batch.tokens) for batch in plan_branches(trie, 512, max_sequences, 64)) == decoded
