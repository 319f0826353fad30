"""Tiny Llama models with random weights and a byte tokenizer, for tests that quantize or collect activations."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np


def byte_tokens() -> list[str]:
    """The 256 printable stand-ins that byte-level BPE uses for bytes (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


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
) -> Path:
    """Write a Llama (or, with ``experts``, a Mixtral-like) GGUF with 4 heads, 2 key-value heads and 258 tokens."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(256)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // 4)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if dtype == np.float32 else gguf.LlamaFileType.MOSTLY_F16)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
    tokens = [*byte_tokens(), "<s>", "</s>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3, 3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_add_bos_token(True)

    def weights(name: str, *shape: int) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * scale).astype(dtype))

    def norm(name: str) -> None:
        writer.add_tensor(name, (1 + 0.1 * random.standard_normal(width)).astype(np.float32))

    weights("token_embd.weight", len(tokens), width)
    norm("output_norm.weight")
    weights("output.weight", len(tokens), width)
    for layer in range(layers):
        prefix = f"blk.{layer}."
        norm(prefix + "attn_norm.weight")
        norm(prefix + "ffn_norm.weight")
        for name, rows in (("attn_q", width), ("attn_k", width // 2), ("attn_v", width // 2), ("attn_output", width)):
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


def tensor_bytes(path: Path) -> dict[str, tuple[str, bytes]]:
    """Storage type and raw bytes of every tensor, by name."""
    reader = gguf.GGUFReader(path)
    return {tensor.name: (tensor.tensor_type.name, tensor.data.tobytes()) for tensor in reader.tensors}
