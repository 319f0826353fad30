"""The Llama forward pass from its definition, in numpy and float64, one sequence at a time: slow, and easy to check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from tiny_model import HEADS, KV_HEADS, RMS_EPSILON

Array = npt.NDArray[np.float64]

ROPE_BASE = 10000.0


class LlamaReference:
    """Weights of an F32 GGUF in memory."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.weights = {tensor.name: np.array(tensor.data, np.float64) for tensor in reader.tensors}
        self.layers = sum(name.endswith("attn_q.weight") for name in self.weights)

    def logits(self, tokens: Sequence[int]) -> Array:
        """The (tokens, vocabulary) logits after each position."""
        w = self.weights
        x: Array = w["token_embd.weight"][list(tokens)]
        for layer in range(self.layers):
            prefix = f"blk.{layer}."
            x = x + self._attention(rms_norm(x, w[prefix + "attn_norm.weight"]), prefix)
            h = rms_norm(x, w[prefix + "ffn_norm.weight"])
            gate = h @ w[prefix + "ffn_gate.weight"].T
            up = h @ w[prefix + "ffn_up.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ w[prefix + "ffn_down.weight"].T  # SwiGLU
        logits: Array = rms_norm(x, w["output_norm.weight"]) @ w["output.weight"].T
        return logits

    def log_probabilities(self, tokens: Sequence[int]) -> Array:
        """Log-softmax of the logits."""
        logits = self.logits(tokens)
        shifted: Array = logits - logits.max(axis=1, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return shifted

    def _attention(self, x: Array, prefix: str) -> Array:
        length = len(x)
        projected = {name: x @ self.weights[f"{prefix}attn_{name}.weight"].T for name in "qkv"}
        queries = rotate(projected["q"].reshape(length, HEADS, -1))
        keys = rotate(projected["k"].reshape(length, KV_HEADS, -1))
        values = projected["v"].reshape(length, KV_HEADS, -1)
        result = np.empty_like(queries)
        for head in range(HEADS):
            group = head // (HEADS // KV_HEADS)  # neighbouring query heads share a key-value head
            scores = queries[:, head] @ keys[:, group].T / np.sqrt(queries.shape[-1])
            scores[np.triu_indices(length, 1)] = -np.inf
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            result[:, head] = weights / weights.sum(axis=1, keepdims=True) @ values[:, group]
        output: Array = result.reshape(length, -1) @ self.weights[f"{prefix}attn_output.weight"].T
        return output


def rms_norm(x: Array, weight: Array) -> Array:
    size: Array = np.sqrt((x * x).mean(axis=-1, keepdims=True) + RMS_EPSILON)
    return x / size * weight


def rotate(x: Array) -> Array:
    """Rotary embedding in llama.cpp's "norm" layout: elements 2i and 2i + 1 of a head are a pair."""
    length, _, size = x.shape
    angles = np.arange(length)[:, None] * ROPE_BASE ** (-np.arange(0, size, 2) / size)
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    return np.stack([even * cosine - odd * sine, even * sine + odd * cosine], axis=-1).reshape(x.shape)
