"""Predicts what a model file needs in memory at a context length, from its header alone.

The parts are those that llama.cpp's load log names: the weights (and what of them is repacked for the processor), the
KV cache, recurrent states, and the compute buffer. The last is an estimate, the others are exact.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gguf_eval.errors import UsageError, nearest
from gguf_eval.files.cache_layout import SPARSE, LayerMemory, cache_layout
from gguf_eval.files.compute_buffer import Batch, compute_bytes, vocabulary_size
from gguf_eval.files.header import ArraySummary, Header
from gguf_eval.files.plan import stored_bytes

_CONTEXT_STEP = 256
"""llama.cpp rounds the context up to a multiple of this."""
_BATCH = 512
"""llama.cpp's default physical batch (``n_ubatch``)."""
CACHE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")


_TOKEN_BYTES, _MERGE_BYTES = 165, 185
"""What llama.cpp's tokenizer keeps for a token (text, score, hash tables), and for a merge (measured)."""
_LIBRARY_BYTES = 3 << 20
"""Code and tables of llama.cpp that loading a model brings in (measured)."""
_REPACKED = {"Q4_0": "AVX2", "Q4_K": "AVX2", "IQ4_NL": "AVX2", "MXFP4": "AVX2", "Q2_K": "AVX512"}
_REPACKED_ARM = frozenset(("Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4", "Q8_0"))
"""Types whose matrices the processor gets a second, reordered copy of, by the instructions that it takes
(ggml-cpu/repack.cpp); on ARM it takes DOTPROD or MATMUL_INT8."""
_SPARSE_NOTE = "sparse attention: the compute buffer is a rough estimate"
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
    state_bytes: int = 0
    """States of recurrent layers, whatever the context."""
    source: str = "header"
    """Of the figures for cache, states and compute buffer: ``header`` or ``llama.cpp``."""
    activation_bytes: int = 0
    """What of the compute buffer is used when only one row of logits is read, as in generating."""
    vocabulary_bytes: int = 0
    """The tokenizer's tables."""

    @property
    def total_bytes(self) -> int:
        """Everything that llama.cpp reserves."""
        return self._kept_bytes + self.compute_bytes

    @property
    def resident_bytes(self) -> int:
        """What generating makes resident on the processor, beyond the program itself: comparable with peak RSS."""
        return self._kept_bytes + self.activation_bytes + self.vocabulary_bytes + _LIBRARY_BYTES

    @property
    def _kept_bytes(self) -> int:
        """What is there all the time."""
        return self.weights_bytes + self.repacked_bytes + self.kv_bytes + self.state_bytes


@dataclass(frozen=True)
class LayerSizes:
    """Weights and what is remembered of tokens by layer, for sharing a model out between devices."""

    weights_bytes: tuple[int, ...]
    kv_bytes: tuple[int, ...]
    """KV cache and recurrent state."""
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
    flash_attention: bool = True,
) -> Footprint:
    """Return the memory for one sequence of ``context`` tokens (by default what the model was trained for).

    Caches with a sliding window hold the window and a batch, as llama.cpp's tools have it, not the whole context.
    ``features``: the processor's instruction sets by llama.cpp's names (``AVX2``), which decide what is repacked;
    ``batch``: tokens computed at once; ``flash_attention``: whether attention keeps no matrix of weights.
    """
    kinds = [_cache_type(cache_type), _cache_type(cache_type_v or cache_type)]
    header = headers[0]
    tokens = _rounded_context(header, context)
    rows = min(batch, tokens)
    layout = cache_layout(header)
    computed = compute_bytes(
        headers, layout, Batch(tokens, rows, flash_attention, (kinds[0] == "F32", kinds[1] == "F32"))
    )
    return Footprint(
        context=tokens,
        cache_type=kinds[0] if kinds[0] == kinds[1] else f"{kinds[0]}/{kinds[1]}",
        weights_bytes=sum(tensor.size_bytes for part in headers for tensor in part.tensors),
        kv_bytes=sum(_kv_bytes(layer, tokens, rows, kinds) for layer in layout),
        compute_bytes=max(computed.logits_bytes, computed.activation_bytes) + computed.output_bytes,
        repacked_bytes=_repacked(headers, features),
        state_bytes=sum(layer.state_bytes for layer in layout),
        activation_bytes=computed.activation_bytes,
        notes=(_SPARSE_NOTE,) * (header.architecture in SPARSE),
        vocabulary_bytes=_TOKEN_BYTES * vocabulary_size(headers) + _MERGE_BYTES * _merges(header),
    )


def layer_sizes(
    headers: Sequence[Header],
    context: int,
    *,
    cache_type: str = "F16",
    cache_type_v: str | None = None,
    batch: int = _BATCH,
) -> LayerSizes:
    """Return the weights, and the KV cache and state, of every layer."""
    tokens = _rounded_context(headers[0], context)
    kinds = [_cache_type(cache_type), _cache_type(cache_type_v or cache_type)]
    layout = cache_layout(headers[0])
    kept = [_kv_bytes(layer, tokens, min(batch, tokens), kinds) + layer.state_bytes for layer in layout]
    weights = [0] * len(kept)
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
    return LayerSizes(tuple(weights), tuple(kept), output or embedding)


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


def _kv_bytes(layer: LayerMemory, tokens: int, rows: int, kinds: Sequence[str]) -> int:
    """Bytes of a layer's caches at these types of keys and values."""
    return sum(
        stored_bytes((width, cache.cells(tokens, rows)), kind)
        for cache in layer.caches
        for width, kind in zip((cache.keys, cache.values), kinds, strict=True)
        if width
    )


def _merges(header: Header) -> int:
    found = header.metadata.get("tokenizer.ggml.merges", [])
    return found.count if isinstance(found, ArraySummary) else len(found)


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
