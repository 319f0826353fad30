"""Conversion in several processes: the same file, and nothing half-written when one of them fails or dies."""

from __future__ import annotations

import io
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from checkpoints import SPECS, make, tiny

from gguf_eval.errors import ModelFileError
from gguf_eval.files.convert import crew
from gguf_eval.files.convert.encode import CastFlags
from gguf_eval.files.convert.pieces import Piece, PieceCopier, cut, place_tensors
from gguf_eval.files.convert.plan import plan_conversion
from gguf_eval.files.convert.write import convert
from gguf_eval.llama.isolated import Channel, Gone


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every model is shared among processes, whatever its size; returns the helpers' process ids as they start."""
    started: list[int] = []

    class Seen(crew.Helper):
        def __init__(self, output: Path) -> None:
            super().__init__(output)
            started.append(self._child.process.pid)

    monkeypatch.setattr(crew, "SHARED_FROM_BYTES", 0)
    monkeypatch.setattr(crew, "physical_cores", lambda: 2)
    monkeypatch.setattr(crew, "_BATCH", 1)
    monkeypatch.setattr(crew, "Helper", Seen)
    return started


@pytest.mark.parametrize("out_type", ["auto", "q8_0"])
def test_a_shared_file_is_the_same(tmp_path: Path, shared: list[int], out_type: str) -> None:
    folder = str(make(tmp_path / "checkpoint", SPECS["mixtral"]))
    together = convert(folder, tmp_path / "shared.gguf", out_type).path
    assert len(shared) == 1 and not psutil.pid_exists(shared[0])
    crew.SHARED_FROM_BYTES = 1 << 40
    assert together.read_bytes() == convert(folder, tmp_path / "alone.gguf", out_type).path.read_bytes()


def test_a_helper_moves_what_it_is_sent(tmp_path: Path) -> None:
    """Seen from inside: the first half of the file by a helper, the other half missing."""
    plan = plan_conversion(str(make(tmp_path / "checkpoint", tiny())), "f32")
    whole = convert(str(tmp_path / "checkpoint"), tmp_path / "x.gguf", "f32").path.read_bytes()
    placed = place_tensors(plan.tensors, len(plan.header))
    pieces = [piece for tensor, place in placed for piece in cut(tensor, place)]
    half = pieces[: len(pieces) // 2]
    output = tmp_path / "half"
    output.write_bytes(bytes(len(whole)))
    answers = io.BytesIO()
    with pytest.raises(Gone):  # nothing more comes
        crew.serve(output, Channel(io.BytesIO(pickle.dumps(half)), answers))
    assert len(pickle.loads(answers.getvalue())) == len(half)
    start, end = len(plan.header), half[-1].place + half[-1].size_bytes
    assert output.read_bytes() == bytes(start) + whole[start:end] + bytes(len(whole) - end)


def test_what_fails_in_a_helper_is_raised_here(tmp_path: Path, shared: list[int]) -> None:
    folder = make(tmp_path / "checkpoint", tiny())
    plan = plan_conversion(str(folder), "f32")
    pieces = [piece for tensor, place in place_tensors(plan.tensors, 0) for piece in cut(tensor, place)]
    for path in folder.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:2000])
    (tmp_path / "out").touch()
    helper = crew.Helper(tmp_path / "out")
    try:
        with pytest.raises(ModelFileError, match="the file ended while it was read"):
            helper.move(pieces)
    finally:
        helper.close()


def test_a_helper_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: list[int]) -> None:
    folder = str(make(tmp_path / "checkpoint", SPECS["mixtral"]))
    move = crew.Helper.move

    def killed(self: crew.Helper, pieces: Sequence[Piece]) -> list[CastFlags]:
        self._child.process.kill()
        return move(self, pieces)

    monkeypatch.setattr(crew.Helper, "move", killed)
    here = PieceCopier.move

    def slow(self: PieceCopier, pieces: Sequence[Piece]) -> list[CastFlags]:
        time.sleep(0.05)  # leaves work to the helper
        return here(self, pieces)

    monkeypatch.setattr(PieceCopier, "move", slow)
    with pytest.raises(ModelFileError, match=r"a process that helped to convert ended \(exit code -?\d+\)"):
        convert(folder, tmp_path / "x.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C leaves neither a process nor a file."""
    folder = str(make(tmp_path / "checkpoint", SPECS["mixtral"]))
    script = (
        "import sys, time; from pathlib import Path; from gguf_eval.cli import main; "
        "from gguf_eval.files.convert import crew; crew.SHARED_FROM_BYTES = 0; crew._BATCH = 1; "
        "crew.physical_cores = lambda: 2; move = crew.PieceCopier.move; "
        "crew.PieceCopier.move = lambda *a: (print('moving', flush=True), time.sleep(0.2), move(*a))[2]; "
        f"sys.argv = ['gguf-eval', 'convert', {folder!r}, '-o', {str(tmp_path / 'x.gguf')!r}]; main()"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    helpers = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert helpers and not any(helper.is_running() for helper in helpers)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
