"""Predicts what a model file needs in memory at a context length, from its header alone.

The parts are those that llama.cpp's load log names: the weights (and what of them is repacked for the processor), the
KV cache, and the compute buffer. The first two are exact for models with plain attention; the last is an estimate.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gguf_eval.errors import UsageError, nearest
from gguf_eval.files.header import ArraySummary, Header
from gguf_eval.files.plan import stored_bytes

_CONTEXT_STEP = 256
"""llama.cpp rounds the context up to a multiple of this."""
_BATCH = 512
"""llama.cpp's default physical batch (``n_ubatch``)."""
CACHE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")


_VOCABULARY_BYTES = 340
"""What llama.cpp's tokenizer keeps for an entry of the vocabulary: text, score, hash tables, merges (measured)."""
_LIBRARY_BYTES = 3 << 20
"""Code and tables of llama.cpp that loading a model brings in (measured)."""
_REPACKED = {"Q4_0": "AVX2", "Q4_K": "AVX2", "IQ4_NL": "AVX2", "MXFP4": "AVX2", "Q2_K": "AVX512"}
_REPACKED_ARM = frozenset(("Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4", "Q8_0"))
"""Types whose matrices the processor gets a second, reordered copy of, by the instructions that it takes
(ggml-cpu/repack.cpp); on ARM it takes DOTPROD or MATMUL_INT8."""
_REPACK_ROWS = 8
"""Only matrices with a multiple of so many rows."""


@dataclass(frozen=True)
class Footprint:
    """Predicted memory for one sequence, in bytes."""

    context: int
    """Tokens, as llama.cpp rounds them."""
    cache_type: str
    """Of the keys, and of the values where they differ: ``F16`` or ``Q8_0/F16``."""
    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    """What llama.cpp reserves for a batch whose every row of logits is read."""
    notes: tuple[str, ...] = ()
    """What makes the prediction less than exact for this model."""
    repacked_bytes: int = 0
    """The second, reordered copy of matrices that the processor computes faster with."""
    activation_bytes: int = 0
    """What of the compute buffer is used when only one row of logits is read, as in generating."""
    vocabulary_bytes: int = 0
    """The tokenizer's tables."""

    @property
    def total_bytes(self) -> int:
        """Everything that llama.cpp reserves."""
        return self.weights_bytes + self.repacked_bytes + self.kv_bytes + self.compute_bytes

    @property
    def resident_bytes(self) -> int:
        """What generating makes resident on the processor, beyond the program itself: comparable with peak RSS."""
        fixed = self.weights_bytes + self.repacked_bytes + self.kv_bytes
        return fixed + self.activation_bytes + self.vocabulary_bytes + _LIBRARY_BYTES


@dataclass(frozen=True)
class LayerSizes:
    """Weights and KV cache by layer, for sharing a model out between devices."""

    weights_bytes: tuple[int, ...]
    kv_bytes: tuple[int, ...]
    output_bytes: int
    """Of the output matrix, which counts as one more layer after the last."""


def predict_footprint(
    headers: Sequence[Header],
    context: int | None = None,
    *,
    cache_type: str = "F16",
    cache_type_v: str | None = None,
    features: Collection[str] = (),
    batch: int = _BATCH,
) -> Footprint:
    """Return the memory for one sequence of ``context`` tokens (by default what the model was trained for).

    KV cache: for every layer, context x key-value heads x (key length + value length) at the cache's types. Compute
    buffer: the logits of a batch of ``batch`` tokens and two of its hidden states, or where that is more the
    activations of one layer and the attention mask. ``features``: the processor's instruction sets by llama.cpp's names
    (``AVX2``), which decide what is repacked.
    """
    kinds = [_cache_type(cache_type), _cache_type(cache_type_v or cache_type)]
    header = headers[0]
    tokens = _rounded_context(header, context)
    weights = sum(tensor.size_bytes for part in headers for tensor in part.tensors)
    keys, values, notes = _row_widths(header)
    kv = sum(_kv_bytes(keys, tokens, kinds[0])) + sum(_kv_bytes(values, tokens, kinds[1]))
    vocabulary = _vocabulary(headers)
    width = _number(header, "embedding_length", 0)
    rows = min(batch, tokens)
    experts = max(1, _number(header, "expert_used_count", 1))
    feed_forward = _number(header, "expert_feed_forward_length", 0) or _number(header, "feed_forward_length", 0)
    activations = rows * (4 * (2 * feed_forward * experts + 4 * width) + 2 * tokens)
    return Footprint(
        context=tokens,
        cache_type=kinds[0] if kinds[0] == kinds[1] else f"{kinds[0]}/{kinds[1]}",
        weights_bytes=weights,
        kv_bytes=kv,
        compute_bytes=max(rows * (4 * vocabulary + 8 * width), activations) + 4 * vocabulary,
        notes=notes,
        repacked_bytes=_repacked(headers, features),
        activation_bytes=activations,
        vocabulary_bytes=_VOCABULARY_BYTES * vocabulary,
    )


def layer_sizes(
    headers: Sequence[Header], context: int, *, cache_type: str = "F16", cache_type_v: str | None = None
) -> LayerSizes:
    """Return the weights and the KV cache of every layer."""
    header = headers[0]
    tokens = _rounded_context(header, context)
    keys, values, _ = _row_widths(header)
    kv = [
        key + value
        for key, value in zip(
            _kv_bytes(keys, tokens, _cache_type(cache_type)),
            _kv_bytes(values, tokens, _cache_type(cache_type_v or cache_type)),
            strict=True,
        )
    ]
    weights = [0] * len(kv)
    output = embedding = 0
    for part in headers:
        for tensor in part.tensors:
            place = tensor.name.split(".")
            if place[0] == "blk" and int(place[1]) < len(weights):
                weights[int(place[1])] += tensor.size_bytes
            elif place[0] == "output":
                output += tensor.size_bytes
            elif place[0] == "token_embd":
                embedding += tensor.size_bytes
    return LayerSizes(tuple(weights), tuple(kv), output or embedding)


def cpu_features(system_info: str) -> frozenset[str]:
    """The processor's instruction sets that this build uses, from llama.cpp's own line on itself."""
    return frozenset(re.findall(r"(\w+) = 1\b", system_info))


def _cache_type(name: str) -> str:
    if name.upper() not in CACHE_TYPES:
        raise UsageError(f"no KV cache type is called '{name}'{nearest(name, CACHE_TYPES)}")
    return name.upper()


def _rounded_context(header: Header, context: int | None) -> int:
    wanted = context or header.context_length or 4096
    if wanted < 1:
        raise UsageError(f"a context of one token or more is needed, found {wanted}")
    return -(-wanted // _CONTEXT_STEP) * _CONTEXT_STEP


def _kv_bytes(widths: Sequence[int], tokens: int, kind: str) -> list[int]:
    return [stored_bytes((width, tokens), kind) if width else 0 for width in widths]


def _repacked(headers: Sequence[Header], features: Collection[str]) -> int:
    """Bytes of the matrices that are copied into another order; tied embeddings are the output matrix too."""
    if "REPACK" not in features:
        return 0
    arm = bool({"DOTPROD", "MATMUL_INT8"} & set(features))
    tied = not any(tensor.name == "output.weight" for part in headers for tensor in part.tensors)
    total = 0
    for part in headers:
        for tensor in part.tensors:
            known = tensor.type_name in _REPACKED_ARM if arm else _REPACKED.get(tensor.type_name) in features
            used = len(tensor.shape) > 1 and (tied or tensor.name != "token_embd.weight")
            if known and used and tensor.shape[1] % _REPACK_ROWS == 0:
                total += tensor.size_bytes
    return total


def _row_widths(header: Header) -> tuple[list[int], list[int], tuple[str, ...]]:
    """Return the numbers a token adds to the K and V cache, layer by layer, and what is not in them."""
    notes = []
    layers = _number(header, "block_count", 0)
    heads = max(1, _number(header, "attention.head_count", 1))
    per_layer = header.metadata.get(f"{header.architecture}.attention.head_count_kv", heads)
    kv_heads = [int(n) for n in per_layer] if isinstance(per_layer, list) else [int(per_layer)] * layers
    if isinstance(per_layer, ArraySummary) or len(kv_heads) < layers:
        kv_heads = [heads] * layers
    head_width = _number(header, "embedding_length", 0) // heads
    key = _number(header, "attention.key_length", head_width)
    value = _number(header, "attention.value_length", head_width)
    known = header.metadata
    if f"{header.architecture}.attention.sliding_window" in known:
        notes.append("sliding-window layers keep less than the whole context: the KV cache is an upper bound")
    if f"{header.architecture}.attention.kv_lora_rank" in known:
        notes.append("attention is compressed (MLA): the KV cache is an upper bound")
    if any(key.startswith(f"{header.architecture}.ssm.") for key in known):
        notes.append("recurrent layers keep a state instead of keys and values: the KV cache is an upper bound")
    return [n * key for n in kv_heads[:layers]], [n * value for n in kv_heads[:layers]], tuple(notes)


def _vocabulary(headers: Sequence[Header]) -> int:
    for header in headers:
        for tensor in header.tensors:
            if tensor.name in ("output.weight", "token_embd.weight"):
                return tensor.shape[-1]
    return 0


def _number(header: Header, key: str, default: int) -> int:
    value = header.metadata.get(f"{header.architecture}.{key}", default)
    if isinstance(value, list):
        return max((int(item) for item in value), default=default)
    return int(value) if isinstance(value, (int, float)) else default
