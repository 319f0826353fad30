"""Shares the pieces of a large model file among processes.

Threads would not do: between numpy's short calls two of them hold each other up over the interpreter, and are hardly
faster together than one. This process moves pieces itself; each helper is a process that is sent batches of them.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Protocol

from gguf_eval.errors import ModelFileError
from gguf_eval.files.convert.encode import Noticed
from gguf_eval.files.convert.pieces import Lane, Piece
from gguf_eval.machine import physical_cores

SHARED_FROM_BYTES = 512 << 20
"""A smaller file is written before a helper has started."""
_MOST_PROCESSES = 4
_BATCH = 32
_AHEAD = 2  # batches that may wait for each process


class _Mover(Protocol):
    def move(self, pieces: Sequence[Piece]) -> list[Noticed]: ...

    def close(self) -> None: ...


class Helper:
    """A process that moves the pieces it is sent."""

    def __init__(self, output: Path) -> None:
        command = [sys.executable, "-m", "gguf_eval.files.convert.crew", str(output)]
        # A group of its own, so that Ctrl-C reaches this process alone, which then ends the helper.
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, creationflags=flags
            )
        else:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )

    def move(self, pieces: Sequence[Piece]) -> list[Noticed]:
        """As `Lane.move`, there. Raises what was raised there, and `ModelFileError` where the process has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            _send(self._process.stdin, list(pieces))
            answer = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise ModelFileError(
                f"a process that helped to convert ended (exit code {self._process.wait()}); "
                "see that the machine has memory left, and convert again"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process; what it was told to move is moved or given up."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not sent can't be sent any more
                    pipe.close()


def move_all(pieces: Iterator[Piece], output: Path, size_bytes: int) -> Iterator[tuple[Piece, Noticed]]:
    """Move ``pieces`` into the file ``output`` that becomes ``size_bytes`` large, and yield them in order."""
    movers: list[_Mover] = []
    free: SimpleQueue[_Mover] = SimpleQueue()

    def move(batch: list[Piece]) -> list[Noticed]:
        mover = free.get()
        try:
            return mover.move(batch)
        finally:
            free.put(mover)

    processes = min(physical_cores(), _MOST_PROCESSES) if size_bytes >= SHARED_FROM_BYTES else 1
    waiting: deque[tuple[list[Piece], Future[list[Noticed]]]] = deque()
    pool = ThreadPoolExecutor(processes)
    try:
        movers.extend(Helper(output) for _ in range(processes - 1))
        movers.append(Lane(output))
        for mover in movers:
            free.put(mover)
        while batch := list(islice(pieces, _BATCH)):
            waiting.append((batch, pool.submit(move, batch)))
            if len(waiting) > _AHEAD * processes:
                yield from _result(*waiting.popleft())
        while waiting:
            yield from _result(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
        for mover in movers:
            mover.close()


def _result(batch: list[Piece], result: Future[list[Noticed]]) -> Iterator[tuple[Piece, Noticed]]:
    return zip(batch, result.result(), strict=True)


def _send(pipe: IO[bytes], content: object) -> None:
    pickle.dump(content, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def serve(output: Path, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Move the batches that ``requests`` holds, and answer each with what was noticed or what went wrong."""
    lane = Lane(output)
    try:
        while True:
            try:
                batch = pickle.load(requests)
            except EOFError:
                return
            answer: list[Noticed] | Exception
            try:
                answer = lane.move(batch)
            except (ModelFileError, OSError) as error:
                answer = error
            _send(answers, answer)
    finally:
        lane.close()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
