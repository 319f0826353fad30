"""Planning of batches, carried out on a model of the key-value cache that checks what llama.cpp checks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_eval.runtime.prefix import Batch, Tokens, Trie, build_trie, held_prefixes, plan_batches, shared_length

sequences_of_tokens = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=20)


@st.composite
def with_headers(draw: st.DrawFn) -> list[list[int]]:
    """Sequences of few different tokens, many of which begin with one of two long headers; some come twice."""
    headers = [[], *draw(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=40), max_size=2))]
    tails = draw(sequences_of_tokens)
    sequences = [draw(st.sampled_from(headers)) + tail for tail in tails]
    return sequences + draw(st.lists(st.sampled_from(sequences), max_size=4))


def arrays(sequences: list[list[int]]) -> list[Tokens]:
    return [np.array(tokens, np.int32) for tokens in sequences]


class Cache:
    """What each sequence holds; refuses what llama_batch_allocr::init refuses, and what would read a wrong cell."""

    def __init__(self, max_sequences: int) -> None:
        self.max_sequences = max_sequences
        self.held: dict[int, list[int]] = {}
        self.trunk = 0

    def run(self, batch: Batch) -> Iterator[tuple[int, ...]]:
        """Carry out a batch; yields for each of its tokens all that the token attends to, itself last."""
        for copy in batch.copies:
            assert copy.target not in self.held, "a branch must start in an empty sequence"
            assert copy.source == self.trunk
            assert copy.length <= len(self.held[copy.source])
            self.held[copy.target] = self.held[copy.source][: copy.length]
        self._check_coupled(batch)
        allowed: dict[int, set[int]] = {}
        for token, position, ids in zip(batch.tokens, batch.positions, batch.sequences, strict=True):
            assert ids, "every token needs a sequence"
            assert len(set(ids)) == len(ids)
            assert all(0 <= i < self.max_sequences for i in ids)
            for i in ids:
                # a sequence's tokens must share at least one sequence ("incompatible sequence sets")
                allowed[i] = allowed.get(i, set(ids)) & set(ids)
                assert allowed[i]
                content = self.held.setdefault(i, [])
                assert position == len(content), "positions of a sequence must be consecutive"
                content.append(int(token))
            yield tuple(self.held[ids[0]])  # the mask goes by the first sequence only
        assert batch.keep is not None
        sequence, length = batch.keep
        kept = self.held.get(sequence, [])
        assert length <= len(kept)
        self.held = {sequence: kept[:length]} if length else {}
        self.trunk = sequence

    def cells(self) -> int:
        """Cells in use between batches."""
        return sum(map(len, self.held.values()))

    def _check_coupled(self, batch: Batch) -> None:
        for ids in batch.sequences:
            cached = {len(self.held.get(i, [])) for i in ids}
            assert len(cached) == 1, "sequences that share a token must hold equally much of the cache"


def node_paths(trie: Trie, paths: list[Tokens]) -> dict[int, tuple[int, ...]]:
    """For each node the tokens from the start to it, from the paths that `build_trie` gives."""
    spelt: dict[int, tuple[int, ...]] = {}
    for path in paths:
        tokens = tuple(trie.tokens[path].tolist())
        for place, node in enumerate(path.tolist()):
            assert spelt.setdefault(node, tokens[: place + 1]) == tokens[: place + 1]
    return spelt


@given(with_headers())
def test_the_trie_holds_every_prefix_once(sequences: list[list[int]]) -> None:
    trie, paths = build_trie(arrays(sequences))
    for tokens, path in zip(sequences, paths, strict=True):
        assert trie.tokens[path].tolist() == tokens
        assert trie.positions[path].tolist() == list(range(len(tokens)))
    prefixes = {tuple(tokens[:n]) for tokens in sequences for n in range(1, len(tokens) + 1)}
    assert trie.size == len(prefixes)
    assert set(node_paths(trie, paths).values()) == prefixes


@given(with_headers())
def test_leaves_are_the_paths_that_nothing_extends(sequences: list[list[int]]) -> None:
    trie, _ = build_trie(arrays(sequences))
    unique = sorted({tuple(tokens) for tokens in sequences})
    leaves = [p for p in unique if not any(len(q) > len(p) and q[: len(p)] == p for q in unique)]
    assert trie.leaf_length.tolist() == [len(leaf) for leaf in leaves]
    own = trie.leaf_length - trie.leaf_shared
    assert trie.leaf_start.tolist() == [0, *np.cumsum(own)[:-1].tolist()]
    assert int(own.sum()) == trie.size
    for first, second, shared in zip(leaves, leaves[1:], trie.leaf_shared[1:].tolist(), strict=False):
        assert shared_length(np.array(first), np.array(second)) == shared


@settings(max_examples=300)
@given(
    sequences=with_headers(),
    batch_size=st.integers(1, 9) | st.sampled_from([16, 64]),
    max_sequences=st.integers(1, 4) | st.just(64),
)
def test_every_node_is_decoded_once_after_exactly_its_prefix(
    sequences: list[list[int]], batch_size: int, max_sequences: int
) -> None:
    trie, paths = build_trie(arrays(sequences))
    spelt = node_paths(trie, paths)
    cache = Cache(max_sequences)
    node = 0
    longest = max(map(len, sequences))
    ends = set((trie.leaf_start + trie.leaf_length - trie.leaf_shared).tolist())
    for batch in plan_batches(trie, batch_size, max_sequences):
        assert batch.nodes.tolist() == list(range(node, node + len(batch.tokens)))
        assert 0 < len(batch.tokens) <= batch_size
        assert len(batch.tokens) == len(batch.positions) == len(batch.sequences)
        # what the scorer reserves: the longest sequence and a batch
        assert cache.cells() + len(batch.tokens) <= longest + batch_size
        for attended in cache.run(batch):
            assert attended == spelt[node]
            node += 1
        used = {i for ids in batch.sequences for i in ids}
        assert len(batch.copies) < len(used)
        if len(batch.tokens) < batch_size and node < trie.size:
            assert len(used) == max_sequences, "only the sequence limit may cut a batch short"
            assert node in ends, "and then at the end of a leaf"
    assert node == trie.size
    assert cache.cells() == 0


def test_a_leaf_takes_a_sequence_only_where_it_branches() -> None:
    # Two endings after a header of three: one batch, the header in both sequences, one token each of their own.
    trie, paths = build_trie(arrays([[5, 6, 7, 9], [5, 6, 7, 8]]))
    assert [path.tolist() for path in paths] == [[0, 1, 2, 4], [0, 1, 2, 3]]
    (batch,) = plan_batches(trie, 512, 256)
    assert batch.tokens.tolist() == [5, 6, 7, 8, 9]
    assert batch.positions.tolist() == [0, 1, 2, 3, 3]
    assert batch.sequences == ((0, 1), (0, 1), (0, 1), (0,), (1,))
    assert batch.keep == (1, 0)


def test_the_trunk_stays_for_the_next_batch() -> None:
    trie, _ = build_trie(arrays([[5, 6, 7, 8], [5, 6, 7, 9]]))
    first, second = plan_batches(trie, 4, 256)
    assert first.tokens.tolist() == [5, 6, 7, 8]
    assert first.keep == (0, 3)
    assert second.tokens.tolist() == [9]
    assert second.sequences == ((0,),)
    assert second.copies == ()


def test_one_sequence_at_a_time_with_a_limit_of_one() -> None:
    trie, _ = build_trie(arrays([[1, 2], [1, 3], [4]]))
    batches = list(plan_batches(trie, 512, 1))
    assert [batch.tokens.tolist() for batch in batches] == [[1, 2], [3], [4]]
    assert all(ids == (0,) for batch in batches for ids in batch.sequences)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [([], [], 0), ([1], [], 0), ([1, 2, 3], [1, 2, 4], 2), ([1, 2], [1, 2, 3], 2), ([2], [1], 0), ([7], [7], 1)],
)
def test_shared_length(first: list[int], second: list[int], expected: int) -> None:
    assert shared_length(np.array(first, np.int32), np.array(second, np.int32)) == expected
    assert shared_length(np.array(second, np.int32), np.array(first, np.int32)) == expected


@given(with_headers(), st.integers(1, 6), st.integers(0, 3))
def test_held_prefixes_are_prefixes_that_are_dropped_or_copied_only(
    sequences: list[list[int]], worth: int, most: int
) -> None:
    prompts = sorted(sequences)
    held: list[list[int]] = []
    for prompt, lengths in zip(prompts, held_prefixes(arrays(prompts), worth=worth, most=most), strict=True):
        assert len(lengths) <= most
        assert all(later - before >= worth for before, later in zip((0, *lengths), lengths, strict=False))
        assert all(length < len(prompt) for length in lengths), "the last token's logits are read"
        wanted = [prompt[:length] for length in lengths]
        kept = [prefix for prefix in held if prefix in wanted]
        assert held[: len(kept)] == kept == wanted[: len(kept)], "what was held is kept from the shortest on"
        held = wanted


def test_prefixes_are_held_while_later_prompts_continue_them() -> None:
    header, passage, other = [1] * 20, [2] * 20, [3] * 30
    prompts = [
        [*header, *passage, 5], [*header, *passage, 6], [*header, *other, 5], [*header, *other, 6], [*header, 9], [9],
    ]  # fmt: skip
    plan = held_prefixes(arrays(prompts), worth=16, most=4)
    assert plan == [(20, 40), (20, 40), (20, 50), (20, 50), (20,), ()]
    assert held_prefixes(arrays(prompts), worth=16, most=1) == [(20,)] * 5 + [()]
