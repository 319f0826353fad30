"""Predicts what a model file needs in memory at a context length, from its header alone.

Three parts, as llama.cpp's load log names them: the weights, the KV cache, and the compute buffer. The first two are
exact for models with plain attention; the last is an estimate from what its two usual peaks hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gguf_eval.errors import UsageError, nearest
from gguf_eval.files.header import ArraySummary, Header
from gguf_eval.files.plan import stored_bytes

_CONTEXT_STEP = 256
"""llama.cpp rounds the context up to a multiple of this."""
_BATCH = 512
"""llama.cpp's default physical batch (``n_ubatch``)."""
CACHE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")


@dataclass(frozen=True)
class Footprint:
    """Predicted memory for one sequence, in bytes."""

    context: int
    """Tokens, as llama.cpp rounds them."""
    cache_type: str
    weights_bytes: int
    kv_bytes: int
    compute_bytes: int
    notes: tuple[str, ...] = ()
    """What makes the prediction less than exact for this model."""

    @property
    def total_bytes(self) -> int:
        """Sum of the three parts."""
        return self.weights_bytes + self.kv_bytes + self.compute_bytes


def predict_footprint(headers: Sequence[Header], context: int | None = None, *, cache_type: str = "F16") -> Footprint:
    """Return the memory for one sequence of ``context`` tokens (by default what the model was trained for).

    KV cache: for every layer, context x key-value heads x (key length + value length) at the cache's type. Compute
    buffer: the logits of a batch of 512 tokens and two of its hidden states, plus the attention mask.
    """
    kind = cache_type.upper()
    if kind not in CACHE_TYPES:
        raise UsageError(f"no KV cache type is called '{cache_type}'{nearest(cache_type, CACHE_TYPES)}")
    header = headers[0]
    wanted = context or header.context_length or 4096
    if wanted < 1:
        raise UsageError(f"a context of one token or more is needed, found {wanted}")
    tokens = -(-wanted // _CONTEXT_STEP) * _CONTEXT_STEP
    weights = sum(tensor.size_bytes for part in headers for tensor in part.tensors)
    keys, values, notes = _row_widths(header)
    kv = sum(stored_bytes((width, tokens), kind) for width in (*keys, *values) if width)
    vocabulary = _vocabulary(headers)
    width = _number(header, "embedding_length", 0)
    batch = min(_BATCH, tokens)
    compute = batch * (4 * vocabulary + 8 * width + 2 * tokens) + 4 * vocabulary
    return Footprint(tokens, kind, weights, kv, compute, notes)


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
