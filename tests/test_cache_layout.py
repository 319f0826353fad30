"""Memory by layer, against what llama.cpp's log said of models of these shapes (batches of 512, one sequence)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_model

from gguf_eval.files.cache_layout import cache_layout
from gguf_eval.files.footprint import layer_sizes, predict_footprint
from gguf_eval.files.header import ArraySummary, Header, TensorInfo, read_header
from gguf_eval.runtime.reserved import reserved_footprint
from gguf_eval.runtime.settings import ContextSettings

MIB = 2**20

LLAMA: dict[str, Any] = {"heads": 32, "kv": 8, "width": 4096, "layers": 32}
SSM: dict[str, Any] = {"ssm.conv_kernel": 4}
MLA: dict[str, Any] = {
    "attention.kv_lora_rank": 512, "attention.key_length": 576, "attention.value_length": 512,
    "attention.key_length_mla": 192, "attention.value_length_mla": 128,
}  # fmt: skip
EVERY: dict[str, Any] = {"attention.key_length": 256, "attention.value_length": 256}
"""Numbers of a head."""


def header(
    family: str, *, heads: Any, kv: Any, width: int, layers: int, vocabulary: Any = 32000, **more: Any
) -> Header:
    """A header with this metadata, and no tensor but the embedding."""
    keys = {
        "block_count": layers, "embedding_length": width, "attention.head_count": heads,
        "attention.head_count_kv": kv, **more,
    }  # fmt: skip
    metadata = {"general.architecture": family, **{f"{family}.{key}": value for key, value in keys.items()}}
    return Header(3, metadata, (TensorInfo("token_embd.weight", (width, vocabulary), "F16", 0, 0),), 0)


def only(layers: int, *at: int) -> list[int]:
    """8 key-value heads at these layers and none elsewhere."""
    return [8 if layer in at else 0 for layer in range(layers)]


CASES: dict[str, tuple[Header, dict[int, float], float]] = {
    "llama3-8b": (header("llama", **LLAMA), {512: 64, 8192: 1024, 65536: 8192}, 0),
    "mistral, whose window llama.cpp does not use": (
        header("llama", **LLAMA, **{"attention.sliding_window": 4096}), {65536: 8192}, 0,
    ),
    "gemma2-9b": (
        header("gemma2", heads=16, kv=8, width=3584, layers=42, **EVERY), {512: 168, 8192: 2100, 65536: 11508}, 0,
    ),
    "gemma3-4b": (
        header("gemma3", heads=8, kv=4, width=2560, layers=34, **EVERY, **{"attention.sliding_window": 1024}),
        {512: 68, 8192: 334, 65536: 1454}, 0,
    ),
    "gemma3n-e4b, whose later layers share caches": (
        header("gemma3n", heads=8, kv=2, width=2048, layers=35, **EVERY, **{"attention.sliding_window": 512}),
        {512: 20, 8192: 96, 65536: 544}, 0,
    ),
    "gpt-oss-20b": (
        header("gpt-oss", heads=64, kv=8, width=2880, layers=24,
               **{"attention.sliding_window": 128, "attention.key_length": 64, "attention.value_length": 64}),
        {512: 24, 8192: 210, 65536: 1554}, 0,
    ),
    "deepseek-v2-lite, which keeps no values": (
        header("deepseek2", heads=16, kv=1, width=2048, layers=27, **MLA), {512: 15.19, 8192: 243, 65536: 1944}, 0,
    ),
    "mamba-2.8b": (
        header("mamba", heads=0, kv=0, width=2560, layers=64, **SSM,
               **{"ssm.inner_size": 5120, "ssm.state_size": 16, "ssm.group_count": 2}),
        {512: 0, 65536: 0}, 23.75,
    ),
    "mamba2-2.7b": (
        header("mamba2", heads=0, kv=0, width=2560, layers=64, **SSM,
               **{"ssm.inner_size": 5120, "ssm.state_size": 128, "ssm.group_count": 1}),
        {65536: 0}, 163.94,
    ),
    "rwkv7-2.9b": (header("rwkv7", heads=0, kv=0, width=2560, layers=32, **{"wkv.head_size": 64}), {65536: 0}, 20.62),
    "falcon-h1-7b, each layer of which has both": (
        header("falcon-h1", heads=12, kv=2, width=3072, layers=44, **SSM,
               **{"ssm.inner_size": 3072, "ssm.state_size": 256, "ssm.group_count": 1,
                  "attention.key_length": 128, "attention.value_length": 128}),
        {512: 22, 65536: 2816}, 133.8,
    ),
    "qwen3-next, attention in each fourth layer": (
        header("qwen3next", heads=16, kv=2, width=2048, layers=48, **SSM, **EVERY,
               **{"ssm.inner_size": 4096, "ssm.state_size": 128, "ssm.group_count": 16}),
        {512: 12, 65536: 1536}, 75.38,
    ),
    "granite-h-small": (
        header("granitehybrid", heads=32, kv=only(40, 5, 15, 25, 35), width=4096, layers=40, **SSM,
               **{"ssm.inner_size": 8192, "ssm.state_size": 128, "ssm.group_count": 1}),
        {512: 8, 65536: 1024}, 147.48,
    ),
    "nemotron-h-8b, with layers of neither": (
        header("nemotron_h", heads=[32] * 52, kv=only(52, 14, 26, 36, 42), width=4096, layers=52, **SSM,
               **{"ssm.inner_size": 8192, "ssm.state_size": 128, "ssm.group_count": 8,
                  "feed_forward_length": [21504 * (layer % 2) for layer in range(52)],
                  "attention.key_length": 128, "attention.value_length": 128}),
        {512: 8, 65536: 1024}, 90.58,
    ),
    "lfm2-1.2b": (
        header("lfm2", heads=32, kv=only(16, 2, 5, 8, 10, 12, 14), width=2048, layers=16, **{"shortconv.l_cache": 3}),
        {512: 6, 65536: 768}, 0.16,
    ),
    "a tiny kimi-linear": (
        header("kimi-linear", heads=[1, 0], kv=[1, 0], width=128, layers=2, **SSM, **MLA, **{"kda.head_dim": 128}),
        {512: 0.56, 4096: 4.5}, 0.07,
    ),
    "a tiny deepseek3.2, with an index": (
        header("deepseek32", heads=1, kv=1, width=128, layers=2, **MLA, **{"attention.indexer.key_length": 128}),
        {512: 1.37, 4096: 11}, 0,
    ),
    "a tiny deepseek4, with compressed rows": (
        header("deepseek4", heads=8, kv=1, width=512, layers=4,
               **{"attention.key_length": 64, "attention.value_length": 64, "attention.sliding_window": 32,
                  "attention.indexer.key_length": 128, "attention.compress_ratios": [0, 0, 4, 128]}),
        {512: 0.37, 4096: 0.78}, 0,
    ),
    "a tiny llama4, whose window is fixed": (
        header("llama4", heads=2, kv=2, width=256, layers=4,
               **{"attention.sliding_window": 32, "attention.sliding_window_pattern": 2}),
        {512: 2, 4096: 16}, 0,
    ),
    "a tiny cohere2 whose file has the pattern": (
        header("cohere2", heads=2, kv=2, width=256, layers=2,
               **{"attention.sliding_window": 32, "attention.sliding_window_pattern": 2}),
        {512: 1, 4096: 4.75}, 0,
    ),
    "a tiny step35, with a layer that only guesses": (
        header("step35", heads=2, kv=2, width=160, layers=3,
               **{"attention.sliding_window": 32, "attention.sliding_window_pattern": [0, 1, 0],
                  "nextn_predict_layers": 1}),
        {512: 0.62, 4096: 2.97}, 0,
    ),
    "bert, which remembers nothing": (header("bert", heads=2, kv=2, width=256, layers=2), {4096: 0}, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_caches_and_states_are_what_llama_cpp_reserves(name: str) -> None:
    model, caches, states = CASES[name]
    for context, mib in caches.items():
        found = predict_footprint([model], context)
        assert found.kv_bytes / MIB == pytest.approx(mib, abs=0.006)
        assert found.state_bytes / MIB == pytest.approx(states, abs=0.006)
        assert found.total_bytes == found.kv_bytes + found.state_bytes + found.compute_bytes
        assert sum(layer_sizes([model], context).kv_bytes) == found.kv_bytes + found.state_bytes


def test_keys_and_values_have_types_of_their_own() -> None:
    model = CASES["gemma3-4b"][0]
    plain = predict_footprint([model], 8192).kv_bytes
    assert predict_footprint([model], 8192, cache_type="q8_0").kv_bytes == plain * 34 // 64
    assert predict_footprint([model], 8192, cache_type="q8_0", cache_type_v="F16").kv_bytes == plain * 98 // 128


def test_a_window_takes_a_batch_and_every_sequence() -> None:
    windowed = next(cache for layer in cache_layout(CASES["gemma3-4b"][0]) for cache in layer.caches)
    assert windowed.cells(32768, 512) == 1536
    assert windowed.cells(32768, 64) == 1280  # 1088, padded
    assert windowed.cells(32768, 512, sequences=4) == 4608
    assert windowed.cells(1024, 512) == 1024


def test_many_layers_are_read_one_by_one(tmp_path: Path) -> None:
    """70 layers: no longer a summary."""
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "deep.gguf", "jamba")
    writer.add_block_count(70)
    writer.add_embedding_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv([2 if layer == 69 else 0 for layer in range(70)])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    layout = cache_layout(read_header(tmp_path / "deep.gguf"))
    assert [layer for layer in range(70) if layout[layer].caches] == [69]


COMPUTE: dict[str, tuple[Header, dict[int, float]]] = {
    "llama2-7b": (
        header("llama", heads=32, kv=32, width=4096, layers=32, feed_forward_length=11008),
        {512: 97.13, 8192: 104.63, 65536: 160.63},
    ),
    "mixtral": (
        header("llama", heads=32, kv=8, width=4096, layers=32, feed_forward_length=14336, expert_used_count=2),
        {512: 200.63, 8192: 208.13, 65536: 264.13},
    ),
    "gemma3-4b": (
        header("gemma3", heads=8, kv=4, width=2560, layers=34, vocabulary=262144, feed_forward_length=10240, **EVERY,
               **{"attention.sliding_window": 1024}),
        {512: 523, 65536: 523},
    ),
    "grok-1, without flash attention": (
        header("grok", heads=48, kv=8, width=6144, layers=64, vocabulary=131072, expert_used_count=2,
               feed_forward_length=32768, **{"attention.key_length": 128, "attention.value_length": 128}),
        {8192: 848.5, 65536: 6336.5},
    ),
    "granite-h-small": (
        header("granitehybrid", heads=32, kv=only(40, 5), width=4096, layers=40, vocabulary=100352, **SSM,
               feed_forward_length=768, expert_used_count=10,
               **{"ssm.inner_size": 8192, "ssm.state_size": 128, "ssm.group_count": 1}),
        {512: 228.9, 65536: 220.4},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPUTE)
def test_compute_buffers_are_estimated(name: str) -> None:
    model, sizes = COMPUTE[name]
    experts = "expert_used_count" in str(model.metadata)
    network = TensorInfo("blk.0.ffn_gate_exps.weight" if experts else "blk.0.ffn_gate.weight", (1,), "F16", 0, 0)
    model = Header(3, model.metadata, (*model.tensors, network), 0)
    for context, mib in sizes.items():
        assert predict_footprint([model], context).compute_bytes / MIB == pytest.approx(mib, rel=0.1)


@pytest.mark.parametrize(("experts", "flash", "kind"), [(0, -1, "F32"), (4, -1, "F16"), (0, 0, "F32"), (0, 1, "Q8_0")])
def test_llama_cpp_reserves_what_is_predicted(tmp_path: Path, experts: int, flash: int, kind: str) -> None:
    path = write_model(tmp_path / "tiny.gguf", feed_forward=1024, experts=experts)
    for context, batch in ((256, 64), (4096, 512)):
        predicted = predict_footprint(
            [read_header(path)], context, batch=batch, flash_attention=flash != 0, cache_type=kind
        )
        settings = ContextSettings(
            n_ctx=context, ubatch_size=batch, cache_type_k=kind, cache_type_v=kind, flash_attention=flash
        )
        reserved = reserved_footprint(path, settings, predicted)
        assert (predicted.source, reserved.source) == ("header", "llama.cpp")
        assert reserved.kv_bytes == pytest.approx(predicted.kv_bytes, abs=0.006 * MIB), "the log has two decimals"
        assert reserved.state_bytes == predicted.state_bytes == 0
        # Quantized caches are rotated, which takes some hidden states more.
        assert predicted.compute_bytes == pytest.approx(reserved.compute_bytes, rel=0.25, abs=MIB // 2)


def test_a_vocabulary_takes_memory_by_its_tokens_and_merges() -> None:
    model = CASES["llama3-8b"][0]
    merged = Header(3, {**model.metadata, "tokenizer.ggml.merges": ArraySummary(1000)}, model.tensors, 0)
    plain, more = (predict_footprint([one], 256).vocabulary_bytes for one in (model, merged))
    assert plain == 32000 * 165
    assert more - plain == 185_000


def test_what_is_only_estimated_is_said() -> None:
    assert predict_footprint([CASES["gemma3-4b"][0]], 256).notes == ()
    assert predict_footprint([CASES["a tiny deepseek4, with compressed rows"][0]], 256).notes
