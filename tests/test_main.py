"""What the program says where the system refuses something that no command foresaw."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import gguf_eval_here
from tiny_model import write_model

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


STEERING = "\x1b[31m\x9b2J\x07x"


def test_names_of_strangers_do_not_steer_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GGUF_EVAL_CACHE", str(tmp_path / "cache"))
    named = write_model(tmp_path / "plain.gguf", layers=1)
    content = named.read_bytes()
    (tmp_path / "named.gguf").write_bytes(content.replace(b"llama", b"ll\x1b[m", 1))
    (tmp_path / f"{STEERING}.gguf").write_bytes(content)
    (tmp_path / f"{STEERING}.toml").write_text('level = "Q8_0"\nnotes = "\\u001b[31m"\n', encoding="utf-8")
    task = f'name = "{"t"}"\nversion = 1\nkind = "choice"\nmetric = "acc"\n\\u001b = 1\n'
    (tmp_path / f"{STEERING}-task.toml").write_text(task, encoding="utf-8")
    for command in (
        ("inspect", f"{STEERING}.gguf"),
        ("inspect", "named.gguf"),
        ("quantize", f"{STEERING}.gguf", "-q", f"{STEERING}.toml", "-o", "made", "--plan"),
        ("recipes", "show", f"{STEERING}.toml"),
        ("tasks", "check", f"{STEERING}-task.toml"),
        ("convert", STEERING),
        ("run", f"{STEERING}.gguf", "-t", "grammar", "-n", "2", "--plan"),
    ):
        done = gguf_eval_here(*command)
        shown = done.stdout + done.stderr
        assert shown, command
        assert not any(character in shown for character in "\x1b\x9b\x07"), (command, shown)
