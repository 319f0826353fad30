"""Tiny Llama models with random weights, written with the gguf package: real files for the real library.

The default width of 256 is one block of a K-quant, so that no tensor falls back to another type.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

HEADS, KV_HEADS = 4, 2
CONTEXT_LENGTH = 256
RMS_EPSILON = 1e-5

UNKNOWN, BOS, EOS, FIRST_BYTE = 0, 1, 2, 3
"""Token ids of `add_sentencepiece`'s vocabulary; its pieces follow the 256 bytes."""
PIECES = (
    "▁the", "he", "▁t", "th", "▁cat", "▁ca", "at", "▁c", "▁sat", "▁s", "in", "▁in", "an", "▁an", "and", "▁and", "er",
    "▁▁", "▁", *"abcdefghijklmnopqrstuvwxyz", *"ABQS", ".", ",", "?", ":", "'", "é", "\n",
)  # fmt: skip
"""Best first: the earlier a piece stands here, the sooner the tokenizer merges it."""

AddTokenizer = Callable[[gguf.GGUFWriter], int]
"""Writes a tokenizer's metadata and returns the size of its vocabulary."""


def byte_tokens() -> list[str]:
    """The 256 printable stand-ins that byte-level BPE uses for bytes (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def add_byte_bpe(writer: gguf.GGUFWriter) -> int:
    """256 bytes, <s> and </s>: one token a byte."""
    tokens = [*byte_tokens(), "<s>", "</s>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * 2)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_add_bos_token(True)
    return len(tokens)


def add_sentencepiece(writer: gguf.GGUFWriter) -> int:
    """<unk>, <s>, </s>, 256 byte tokens and `PIECES`: merges across the border of context and continuation occur."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * len(PIECES)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(rank) for rank in range(len(PIECES))])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)
    return len(tokens)


def write_model(
    path: Path,
    *,
    width: int = 256,
    feed_forward: int = 512,
    layers: int = 2,
    experts: int = 0,
    seed: int = 0,
    dtype: type[np.floating] = np.float32,
    scale: float = 0.05,
    tokenizer: AddTokenizer = add_byte_bpe,
) -> Path:
    """Write a Llama (or, with ``experts``, a Mixtral-like) GGUF with 4 heads and 2 key-value heads."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(RMS_EPSILON)
    writer.add_rope_dimension_count(width // HEADS)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if dtype == np.float32 else gguf.LlamaFileType.MOSTLY_F16)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
    vocabulary = tokenizer(writer)

    def weights(name: str, *shape: int) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * scale).astype(dtype))

    def norm(name: str) -> None:
        writer.add_tensor(name, (1 + 0.1 * random.standard_normal(width)).astype(np.float32))

    weights("token_embd.weight", vocabulary, width)
    norm("output_norm.weight")
    weights("output.weight", vocabulary, width)
    kv_width = width // HEADS * KV_HEADS
    for layer in range(layers):
        prefix = f"blk.{layer}."
        norm(prefix + "attn_norm.weight")
        norm(prefix + "ffn_norm.weight")
        for name, rows in (("attn_q", width), ("attn_k", kv_width), ("attn_v", kv_width), ("attn_output", width)):
            weights(f"{prefix}{name}.weight", rows, width)
        if experts:
            writer.add_tensor(
                prefix + "ffn_gate_inp.weight", random.standard_normal((experts, width)).astype(np.float32)
            )
            weights(prefix + "ffn_gate_exps.weight", experts, feed_forward, width)
            weights(prefix + "ffn_up_exps.weight", experts, feed_forward, width)
            weights(prefix + "ffn_down_exps.weight", experts, width, feed_forward)
        else:
            weights(prefix + "ffn_gate.weight", feed_forward, width)
            weights(prefix + "ffn_up.weight", feed_forward, width)
            weights(prefix + "ffn_down.weight", width, feed_forward)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
