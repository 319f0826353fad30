"""llama.cpp's own words: its reasons in our errors, its warnings told once."""

from __future__ import annotations

import ctypes
import json
import sqlite3
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from builders import write_task
from cli_process import gguf_eval
from in_process import gguf_eval_here
from tiny_model import add_byte_bpe, write_model

from gguf_eval.errors import EngineError
from gguf_eval.llama.library import library
from gguf_eval.llama.log import buffers_in, captured_log, keep_log, take_reason, take_warnings, watch_log
from gguf_eval.llama.reasons import context_failure, reason_in
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.settings import ContextSettings

DEGRADED = "missing pre-tokenizer type, using: 'default'; GENERATION QUALITY WILL BE DEGRADED!; CONSIDER REGENERATING"


def without_pre_tokenizer(writer: gguf.GGUFWriter) -> int:
    """`add_byte_bpe` of a converter that did not know the tokenizer."""
    count = add_byte_bpe(writer)
    del writer.kv_data[0]["tokenizer.ggml.pre"]
    return count


def test_the_line_that_tells_is_quoted() -> None:
    lines = [
        "llama_model_load: error loading model: error loading model architecture: unknown model architecture: 'x'",
        "llama_model_load_from_file_impl: failed to load model",
    ]
    assert reason_in(lines) == "error loading model architecture: unknown model architecture: 'x'"
    assert reason_in([]) == ""


def test_a_smaller_context_is_advised_only_where_it_may_help() -> None:
    assert context_failure("failed to allocate buffer for kv cache").endswith("try a smaller --ctx or batch")
    assert context_failure("").endswith("try a smaller --ctx or batch")
    assert "--ctx" not in context_failure("model does not support different K (q8_0) and V (f16) cache types")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cache_type_v": "Q8_0", "flash_attention": 0}, "quantized V cache requires flash_attn .*--flash-attn auto"),
        ({"cache_type_k": "Q8_0"}, "K cache type q8_0 with block size 32 does not divide n_embd_head_k=16; take other"),
    ],
)
def test_a_context_that_is_refused_says_why(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with (
        Model(write_model(tmp_path / "narrow.gguf", width=64)) as model,
        pytest.raises(EngineError, match=f"can't open a context of 256 tokens: {words}"),
    ):
        model.open_context(ContextSettings(n_ctx=256, **settings))


def test_a_tensor_of_the_wrong_shape_is_named(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    content = path.read_bytes()
    name = b"blk.1.ffn_up.weight"
    at = content.index(name) + len(name) + 4
    rows, columns = (512).to_bytes(8, "little"), (256).to_bytes(8, "little")
    assert content[at : at + 16] == columns + rows
    path.write_bytes(content[:at] + rows + columns + content[at + 16 :])
    with pytest.raises(EngineError, match=r"tensor 'blk.1.ffn_up.weight' has wrong shape; expected .*; the file does"):
        Model(path)


def test_a_decode_that_fails_says_why(tiny_model: Model) -> None:
    token, zero, yes = np.array([5], np.int32), np.zeros(1, np.int32), np.ones(1, np.int8)
    with tiny_model.open_context(ContextSettings(n_ctx=256)) as context:
        context.decode(token, zero, [(0,)], yes)
        with pytest.raises(EngineError, match="status -1: .*inconsistent sequence positions; the last position stored"):
            context.decode(token, zero, [(0,)], yes)
        with pytest.raises(EngineError, match=r"status -1: invalid token\[0\] = -5$"):
            context.decode(-token, zero, [(1,)], yes)


def test_warnings_are_kept_until_asked_for(tmp_path: Path) -> None:
    take_warnings()
    with Model(write_model(tmp_path / "tiny.gguf", tokenizer=without_pre_tokenizer), no_alloc=True):
        assert [text.startswith(DEGRADED) for text in take_warnings()] == [True]
        assert take_warnings() == []
    with Model(write_model(tmp_path / "sound.gguf"), no_alloc=True) as model:
        model.open_context(ContextSettings(n_ctx=512, swa_full=True)).close()
    assert take_warnings() == []
    assert take_reason() == ""


def test_a_flood_of_warnings_hides_none_and_is_told_once() -> None:
    watch_log()
    take_warnings()
    callback = library().llama_log_callback()
    library().llama_log_get(ctypes.byref(callback), ctypes.byref(ctypes.c_void_p()))
    callback(3, b"load: missing pre-tokenizer type, using: 'default'\n", None)
    for token in range(300):
        callback(3, b"load: control-looking token: %6d '<x>' was not control-type\n" % token, None)
    for position in range(300):
        callback(3, b"find_slot: non-consecutive token position %d after 0 for sequence 3\n" % position, None)
        if position == 150:
            first = take_warnings()
    assert first == [
        "missing pre-tokenizer type, using: 'default'",
        "non-consecutive token position 0 after 0 for sequence 3",
    ]
    assert take_warnings() == ["non-consecutive token position 151 after 0 for sequence 3"]


def test_the_log_is_watched_whoever_else_listens() -> None:
    llama = library()
    watch_log()
    heard: list[bytes] = []
    other = llama.llama_log_callback(lambda level, text, data: heard.append(text))
    with captured_log():  # puts back what there was
        llama.llama_log_set(other, None)
        watch_log()
        llama.llama_batch_free(llama.llama_batch_init(1, 0, 1))
        with pytest.raises(EngineError, match="failed to open GGUF file|No such file"):
            Model(Path("not-there.gguf"))
    assert any(b"not-there.gguf" in text for text in heard)


def test_the_log_is_watched_after_it_is_kept_in_a_file(tmp_path: Path) -> None:
    watch_log()
    with captured_log():  # puts back what there was
        keep_log(tmp_path / "log")
        watch_log()
        with pytest.raises(EngineError, match="failed to open GGUF file|No such file"):
            Model(Path("not-there.gguf"))
    assert "not-there.gguf" in (tmp_path / "log").read_text()


def test_a_line_in_several_messages_is_one(capfd: pytest.CaptureFixture[str]) -> None:
    llama = library()
    with captured_log(forward=False) as log:
        callback = llama.llama_log_callback()
        llama.llama_log_get(ctypes.byref(callback), ctypes.byref(ctypes.c_void_p()))
        for level, text in ((2, b"one "), (5, b"two"), (5, b"\nthree\n"), (1, b"of no interest"), (5, b"\n")):
            callback(level, text, None)
    assert log == ["one two\n", "three\n"]
    assert capfd.readouterr().err == ""


def test_caches_that_are_not_allocated_have_a_size() -> None:
    lines = [
        "llama_kv_cache_iswa: creating non-SWA KV cache, size = 4096 cells",
        "llama_kv_cache:        CPU KV buffer size =     0.00 MiB",
        "llama_kv_cache: size =    4.00 MiB (  4096 cells,   1 layers,  1/1 seqs), K (f16):    2.00 MiB",
        "llama_kv_cache:        CPU KV buffer size =     0.50 MiB",
        "llama_kv_cache: size =    0.50 MiB (   768 cells,   1 layers,  1/1 seqs), K (f16):    0.25 MiB",
    ]
    assert [(b.place, b.holds, b.size_bytes / 2**20) for b in buffers_in(lines)] == [
        ("CPU", "KV", 4),
        ("CPU", "KV", 0.5),
    ]


def test_a_run_tells_once_what_llama_cpp_warns_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGUF_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "tiny.gguf", tokenizer=without_pre_tokenizer)
    write_task(tmp_path, 3)
    done = gguf_eval_here("run", "tiny.gguf", "-t", "count.toml", "-r", "1", "-c", "128", "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("llama.cpp warns: missing pre-tokenizer type") == 1
    [environment] = sqlite3.connect(tmp_path / "tiny.study.sqlite").execute("SELECT environment FROM run").fetchone()
    [[warning]] = json.loads(environment)["warnings"].values()
    assert warning.startswith(DEGRADED)
    report = gguf_eval("report", "tiny.study.sqlite")
    assert "llama.cpp warns: missing pre-tokenizer type" in report.stdout + report.stderr


def test_perplexity_and_previews_tell_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGUF_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "tiny.gguf", tokenizer=without_pre_tokenizer)
    (tmp_path / "text.txt").write_text("some words " * 40, encoding="utf-8")
    done = gguf_eval_here("perplexity", "tiny.gguf", "--text", "text.txt", "-c", "64", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("llama.cpp warns: missing pre-tokenizer type") == 1
    write_task(tmp_path, 3)
    shown = gguf_eval_here("tasks", "show", "count.toml", "--model", "tiny.gguf")
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr.count("llama.cpp warns: missing pre-tokenizer type") == 1
