"""What the program says where the system refuses something that no command foresaw."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import gguf_eval_here

COMMAND = [sys.executable, "-m", "gguf_eval"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is full")
def test_a_full_standard_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "tasks"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No space left on device" in done.stderr


def test_who_has_read_enough_ends_it_quietly() -> None:
    with subprocess.Popen([*COMMAND, "tasks"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        code = process.wait()
    assert (code, said) == (1, b"")


def test_a_name_that_no_system_takes_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    done = gguf_eval_here("inspect", "x" * 5000)
    assert done.returncode == 1
    assert "File name too long" in done.stderr or "no such file" in done.stderr
    assert done.stderr.count("\n") == 1
    monkeypatch.setenv("GGUF_EVAL_TRACEBACK", "1")
    if os.name == "posix":
        with pytest.raises(OSError, match="File name too long"):
            gguf_eval_here("inspect", "x" * 5000)
