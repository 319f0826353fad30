"""Speed, memory and the build's description, on the tiny model."""

from __future__ import annotations

import psutil
import pytest

from gguf_eval.errors import EngineError
from gguf_eval.llama.library import build_info
from gguf_eval.runtime.memory import peak_rss_bytes
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.settings import ContextSettings
from gguf_eval.runtime.speed import measure_speed, speed_tests


@pytest.mark.parametrize("batch_size", [8, 64])  # a prompt of several batches, and of one
def test_speed_is_a_sample_a_repetition(tiny_model: Model, batch_size: int) -> None:
    with tiny_model.open_context(ContextSettings(n_ctx=256, batch_size=batch_size, threads=1)) as context:
        samples = list(measure_speed(context, speed_tests([20], [3]), repetitions=2))
    assert [(sample.test, sample.repetition, sample.tokens) for sample in samples] == [
        ("pp20", 0, 20),
        ("pp20", 1, 20),
        ("tg3", 0, 3),
        ("tg3", 1, 3),
        ("anchor pp20", 0, 20),
        ("anchor tg3", 0, 3),
    ]
    assert all(sample.seconds > 0 for sample in samples)


def test_a_prompt_longer_than_the_context_is_an_error(tiny_model: Model) -> None:
    with (
        tiny_model.open_context(ContextSettings(n_ctx=256, batch_size=64, threads=1)) as context,
        pytest.raises(EngineError, match="llama_decode failed"),
    ):
        list(measure_speed(context, speed_tests([300], [1]), repetitions=1))


def test_peak_memory_is_at_least_what_is_in_use() -> None:
    in_use = psutil.Process().memory_info().rss
    peak, method = peak_rss_bytes()
    assert peak >= 0.9 * in_use  # the kernel updates the figures at different times
    assert peak < psutil.virtual_memory().total
    assert method in {"VmHWM", "peak_wset", "ru_maxrss"}


def test_memory_that_was_freed_stays_in_the_peak() -> None:
    before = psutil.Process().memory_info().rss
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    del block
    assert peak_rss_bytes()[0] >= before + 48 * 2**20


def test_the_build_is_described(tiny_model: Model) -> None:
    info = build_info()
    assert set(info) == {"llama_cpp_python", "llama_cpp", "system_info", "gpu_offload", "rpc"}
    assert all(info[key] for key in ("llama_cpp_python", "llama_cpp", "system_info"))
    assert tiny_model.vocab_size > 256
