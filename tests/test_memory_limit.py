"""What does not fit: said before it is loaded, or ended before the machine suffers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gguf_eval.cli.options import memory_bytes
from gguf_eval.errors import EngineError, UsageError
from gguf_eval.runtime.settings import CPU_ONLY, EngineSettings
from gguf_eval.study.jobs import SpeedJob
from gguf_eval.study.memory_watch import MemoryWatch
from gguf_eval.study.process import run_in_worker

MIB = 2**20


def job(model: Path, limit: int, n_ctx: int = 256) -> SpeedJob:
    engine = EngineSettings(CPU_ONLY, max_memory_bytes=limit)
    return SpeedJob(str(model), n_ctx, (32,), (4,), 1, 1, engine, batch_size=64, ubatch_size=64)


def test_a_model_that_can_not_fit_is_refused_before_it_is_loaded(tiny_f32: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(EngineError, match=r"needs about \d+ MB of memory at a context of 100096.*--max-memory allows"):
        run_in_worker(job(tiny_f32, 90 * MIB, n_ctx=100_000), log, lambda event: None)
    assert "load_tensors" not in log.read_text(encoding="utf-8")


def test_a_worker_that_takes_more_than_it_may_is_ended(tiny_f32: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"ended when it took \d+ MB, more than --max-memory of 26 MB"):
        run_in_worker(job(tiny_f32, 25 * MIB), tmp_path / "log", lambda event: None)


def test_the_watch_leaves_those_alone_that_stay_below() -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.3)"])
    with MemoryWatch(sleeper.pid, 2**40, sleeper.kill) as watch:
        assert sleeper.wait() == 0
    assert watch.exceeded_bytes is None


def test_sizes_are_read_as_people_write_them() -> None:
    sizes = {"": None, "6G": 6 * 2**30, "1.5g": 3 * 2**29, "800M": 800 * MIB, "2 GiB": 2**31, "123": 123}
    assert {text: memory_bytes(text) for text in sizes} == sizes
    for text in ("much", "-1G", "6X"):
        with pytest.raises(UsageError, match="a size like"):
            memory_bytes(text)
