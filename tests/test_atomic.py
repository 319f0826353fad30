"""Files that are whole or absent."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gguf_eval.atomic import remove_unfinished, unfinished_path, written_whole
from gguf_eval.errors import UsageError


def test_the_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    output = tmp_path / "new" / "out.txt"
    with written_whole(output) as unfinished:
        unfinished.write_text("whole")
        assert not output.exists() and unfinished.parent == output.parent
    assert [path.name for path in output.parent.iterdir()] == ["out.txt"]
    assert output.read_text() == "whole"
    if os.name == "posix":
        (tmp_path / "plain").touch()
        assert output.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_there_was_stays_when_writing_fails(tmp_path: Path) -> None:
    output = tmp_path / "out.txt"
    output.write_text("old")
    with pytest.raises(KeyboardInterrupt), written_whole(output) as unfinished:
        unfinished.write_text("ha")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]
    assert output.read_text() == "old"


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="a writable folder is needed"), written_whole(tmp_path / "file" / "out.txt"):
        pass


def test_what_a_dead_process_left_is_removed(tmp_path: Path) -> None:
    ours = unfinished_path(tmp_path / "out.txt")
    remove_unfinished(tmp_path, os.getpid() + 1)
    assert ours.exists()
    remove_unfinished(tmp_path, os.getpid())
    assert not ours.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX's named pipes")
def test_what_is_no_regular_file_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        with written_whole(pipe) as unfinished:
            unfinished.write_text("whole")
        assert read.result(10) == "whole"
    assert pipe.is_fifo()
    with pytest.raises(UsageError, match="this is a folder"), written_whole(tmp_path):
        pass
