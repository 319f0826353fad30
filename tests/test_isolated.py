"""A function in a process of its own: what comes back, and what is left, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from gguf_eval.atomic import unfinished_path
from gguf_eval.errors import EngineError, ModelFileError
from gguf_eval.llama.isolated import run_isolated


def crash(folder: Path, report: Callable[[Any], None]) -> None:
    unfinished_path(folder / "out.gguf")
    report("begun")
    os.write(2, b"ggml.c:1: GGML_ASSERT(false) failed\n")
    os.kill(os.getpid(), signal.SIGABRT) if os.name == "posix" else os.abort()


def refuse(folder: Path, report: Callable[[Any], None]) -> None:
    raise ModelFileError(f"{folder}: refused")


def test_a_crash_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    seen: list[str] = []
    with pytest.raises(
        EngineError, match=r"the process that runs llama.cpp ended \(.*\): ggml.c:1: GGML_ASSERT\(false\) failed"
    ):
        run_isolated(crash, tmp_path, log=tmp_path / "log", folder=tmp_path, on_progress=seen.append)
    assert seen == ["begun"]
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_errors_come_back_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="refused"):
        run_isolated(refuse, tmp_path, log=tmp_path / "log", folder=tmp_path)


def talk(report: Callable[[Any], None]) -> str:
    print("said aloud")
    os.write(1, b"by a library\n")
    report({"done": 1})
    return "result"


def test_what_it_prints_goes_to_the_log(tmp_path: Path) -> None:
    seen: list[Any] = []
    assert run_isolated(talk, log=tmp_path / "logs" / "log", folder=tmp_path, on_progress=seen.append) == "result"
    assert seen == [{"done": 1}]
    assert sorted((tmp_path / "logs" / "log").read_text().split("\n")) == ["", "by a library", "said aloud"]


def stumble(report: Callable[[Any], None]) -> None:
    raise ZeroDivisionError("of its own")


def test_a_fault_of_ours_is_named_from_the_log(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"ended \(exit code 1\): ZeroDivisionError: of its own \(log: "):
        run_isolated(stumble, log=tmp_path / "log", folder=tmp_path)


def sleep(report: Callable[[Any], None]) -> None:
    report(os.getpid())
    time.sleep(600)


def test_it_does_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; "
        "from gguf_eval.llama.isolated import run_isolated; from test_isolated import sleep; "
        "place = Path(sys.argv[1]); "
        "run_isolated(sleep, log=place / 'log', folder=place, on_progress=lambda pid: print(pid, flush=True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running()
