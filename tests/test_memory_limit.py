"""What does not fit: said before it is loaded, or ended before the machine suffers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_eval.cli.options import memory_bytes
from gguf_eval.errors import EngineError, UsageError
from gguf_eval.runtime.settings import CPU_ONLY, EngineSettings
from gguf_eval.sizes import limit_text, parse_size
from gguf_eval.study.memory_watch import MemoryWatch
from gguf_eval.study.process import run_in_worker
from gguf_eval.study.stages.speed import SpeedJob

MIB = 2**20


def job(model: Path, limit: int, n_ctx: int = 256) -> SpeedJob:
    engine = EngineSettings(CPU_ONLY, max_memory_bytes=limit)
    return SpeedJob(str(model), n_ctx, (32,), (4,), 1, 1, engine, batch_size=64, ubatch_size=64)


def test_a_model_that_can_not_fit_is_refused_before_it_is_loaded(tiny_f32: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(
        EngineError, match=r"needs about \d+ MB of memory at a context of 300032.*--max-memory allows 90 MiB"
    ):
        run_in_worker(job(tiny_f32, 90 * MIB, n_ctx=300_000), log, lambda event: None)
    assert "load_tensors" not in log.read_text(encoding="utf-8")


def test_where_it_nearly_fits_llama_cpp_is_asked_first(tiny_f32: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(EngineError, match=r"needs about \d+ MB of memory at a context of 100096.*KV cache 102 MB"):
        run_in_worker(job(tiny_f32, 110 * MIB, n_ctx=100_000), log, lambda event: None)
    said = log.read_text(encoding="utf-8")
    assert "load_mode = none" in said
    assert "CPU KV buffer size =     0.00 MiB" in said


def test_a_worker_that_takes_more_than_it_may_is_ended(tiny_f32: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"ended when it took \d+ MB, more than --max-memory of 25 MiB"):
        run_in_worker(job(tiny_f32, 25 * MIB), tmp_path / "log", lambda event: None)


@pytest.mark.parametrize(
    "text", ["6 GB", "6 GiB", "6.25 GB", "5.5 GiB", "800 MB", "25 MiB", "1.024 TB", "100 kB", "96 KiB", "123 B"]
)
def test_a_limit_is_shown_in_the_unit_it_was_typed_in(text: str) -> None:
    size = memory_bytes(text)
    assert size is not None
    assert limit_text(size) == text


@given(st.integers(1, 2**50))
def test_a_limit_that_is_round_in_no_unit_is_rounded(size: int) -> None:
    shown = parse_size(limit_text(size))
    assert shown == pytest.approx(size, rel=0.05, abs=0.5e6)


def test_the_watch_leaves_those_alone_that_stay_below() -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.3)"])
    with MemoryWatch(sleeper.pid, 2**40, sleeper.kill) as watch:
        assert sleeper.wait() == 0
    assert watch.exceeded_bytes is None


def test_sizes_are_read_as_people_write_them() -> None:
    sizes = {"": None, "6G": 6 * 10**9, "6GB": 6 * 10**9, "1.5g": 15 * 10**8, "800M": 800 * 10**6, "2 GiB": 2**31,
             "1.5mib": 3 * 2**19, "123": 123}  # fmt: skip
    assert {text: memory_bytes(text) for text in sizes} == sizes
    for text in ("much", "-1G", "6X", "3i", "0", "0.0GB"):
        with pytest.raises(UsageError, match="a size like"):
            memory_bytes(text)
