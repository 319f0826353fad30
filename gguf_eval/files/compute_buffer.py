"""Estimates llama.cpp's compute buffer: what a graph over one batch needs beside weights and caches.

The graph allocator reuses memory, so that the buffer is as large as the largest phase: the logits of all rows, the
attention, the feed-forward network or the recurrent part of one layer. Which tensors live together was read from the
buffers that llama.cpp reserves for models of some 130 architectures and for real sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gguf_eval.files.cache_layout import SPARSE, Facts, LayerMemory
from gguf_eval.files.header import Header

_F32_BYTES, _F16_BYTES = 4, 2
_NO_FLASH_ATTENTION = frozenset(("grok",))
"""Families for which llama.cpp switches it off."""
_PER_LAYER_MADE, _PER_LAYER_KEPT = 4, 2
"""Copies of the embeddings that some models add in each layer, when they are made and while layers are computed."""
_RWKV_HIDDEN_STATES = 18


@dataclass(frozen=True)
class Batch:
    """What is computed at once."""

    context: int
    """Tokens."""
    rows: int
    """Tokens of the batch."""
    flash_attention: bool
    copied: tuple[bool, bool] = (False, False)
    """Whether keys, and values, are kept in F32: flash attention copies those of a layer to F16."""


@dataclass(frozen=True)
class ComputeBytes:
    """The largest phases, and the buffer of results."""

    logits_bytes: int
    """Logits of every row and two hidden states."""
    activation_bytes: int
    """The largest phase of a layer, with the attention mask."""
    output_bytes: int
    """One row of logits, which the program reads."""


def compute_bytes(headers: Sequence[Header], layout: Sequence[LayerMemory], batch: Batch) -> ComputeBytes:
    """Return the estimate for a model with these headers (one for each part) and caches."""
    facts = Facts(headers[0])
    vocabulary = vocabulary_size(headers)
    added = _per_layer_width(headers)
    flash = batch.flash_attention and facts.family not in _NO_FLASH_ATTENTION
    weights = 0 if flash else facts.heads * batch.context * any(layer.caches for layer in layout)
    copies = _copied_numbers(facts, layout, batch) * _F16_BYTES if flash else 0
    around = _PER_LAYER_KEPT * added + _index_width(facts, batch)
    attention = batch.rows * _F32_BYTES * (_attention_width(facts) + weights + around) + copies
    others = max(_feed_forward_width(facts, headers), _recurrent_width(facts, layout)) + around
    mask = _mask_bytes(layout, batch, _F16_BYTES if flash else _F32_BYTES)
    activations = max(attention, batch.rows * _F32_BYTES * max(others, _PER_LAYER_MADE * added))
    return ComputeBytes(
        logits_bytes=batch.rows * _F32_BYTES * (vocabulary + 2 * facts.width),
        activation_bytes=activations + batch.rows * mask,
        output_bytes=_F32_BYTES * vocabulary,
    )


def vocabulary_size(headers: Sequence[Header]) -> int:
    """Return the number of tokens, from the shape of the embedding; 0 where there is none."""
    for header in headers:
        for tensor in header.tensors:
            if tensor.name in ("output.weight", "token_embd.weight"):
                return tensor.shape[-1]
    return 0


def _mask_bytes(layout: Sequence[LayerMemory], batch: Batch, number_bytes: int) -> int:
    """For each row: a mask over the whole context, and another over the cells of sliding windows."""
    lengths = {cache.window: cache.cells(batch.context, batch.rows) for layer in layout for cache in layer.caches[:1]}
    return number_bytes * sum(lengths.values())


def _copied_numbers(facts: Facts, layout: Sequence[LayerMemory], batch: Batch) -> int:
    """Keys and values of the layer that has most; compressed values are a part of the keys, and copied too."""
    keys, values = batch.copied
    within = facts.value_length
    return max(
        (
            cache.cells(batch.context, batch.rows) * (keys * cache.keys + values * (cache.values or within))
            for layer in layout
            for cache in layer.caches[:1]
        ),
        default=0,
    )


def _attention_width(facts: Facts) -> int:
    """Numbers for each row: hidden state, queries before and after rotation, keys, values, what comes out."""
    return 3 * facts.width + 4 * max(facts.width, facts.heads * facts.key_length)


def _feed_forward_width(facts: Facts, headers: Sequence[Header]) -> int:
    """The gate, what goes up and their product, for every expert used, and hidden states around them."""
    dense = max(facts.numbers("feed_forward_length", 0), default=0)
    used = max(facts.numbers("expert_used_count", 0), default=0)
    names = [tensor.name for header in headers for tensor in header.tensors]
    if used and any("_exps." in name for name in names):
        of_expert = max(facts.numbers("expert_feed_forward_length", 0), default=0) or dense
        return used * (3 * of_expert + facts.width) + 2 * facts.width
    gated = any(name.endswith("ffn_gate.weight") for name in names)
    # Freed hidden states are too small to be used again where the network is wide.
    around = 4 if dense >= 2 * facts.width else 2
    return (3 if gated else 2) * dense + around * facts.width


def _recurrent_width(facts: Facts, layout: Sequence[LayerMemory]) -> int:
    """Projections, convolution and output of a recurrent layer."""
    if not any(layer.state_bytes for layer in layout) or facts.family.startswith("lfm2"):
        return 0
    if facts.family.startswith(("rwkv", "arwkv")):
        return _RWKV_HIDDEN_STATES * facts.width
    inner = facts.number("ssm.inner_size", 0)
    mixed = 2 * facts.groups * facts.number("ssm.state_size", 0)
    return 5 * inner + 3 * mixed + 2 * facts.width


def _index_width(facts: Facts, batch: Batch) -> int:
    """Queries of sparse attention's index, and their scores over the context."""
    heads, width = facts.number("attention.indexer.head_count", 0), facts.number("attention.indexer.key_length", 0)
    scored = batch.context // (4 if facts.family == "deepseek4" else 1)
    return 2 * heads * width + 5 * scored // 2 if facts.family in SPARSE and width else 0


def _per_layer_width(headers: Sequence[Header]) -> int:
    for header in headers:
        for tensor in header.tensors:
            if tensor.name == "per_layer_token_embd.weight":
                return tensor.shape[0]
    return 0
