"""Shares the pieces of a large model file among processes.

Threads would not do: between numpy's short calls two of them hold each other up over the interpreter, and are hardly
faster together than one. This process moves pieces itself; each helper is a process that is sent batches of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from gguf_eval.errors import ModelFileError
from gguf_eval.files.convert.encode import CastFlags
from gguf_eval.files.convert.pieces import Piece, PieceCopier
from gguf_eval.llama.isolated import Channel, Child, Gone
from gguf_eval.llama.patience import ProgressWatch
from gguf_eval.machine import physical_cores

SHARED_FROM_BYTES = 512 << 20
"""A smaller file is written before a helper has started."""
_MOST_PROCESSES = 4
_BATCH = 32
_AHEAD = 2  # batches that may wait for each process


class _Copier(Protocol):
    def move(self, pieces: Sequence[Piece]) -> list[CastFlags]: ...

    def close(self) -> None: ...


class Helper:
    """A process that moves the pieces it is sent."""

    def __init__(self, output: Path) -> None:
        self._child = Child(serve, output)

    def move(self, pieces: Sequence[Piece]) -> list[CastFlags]:
        """As `PieceCopier.move`, there. Raises what was raised there, and `ModelFileError` where that ended or hung."""
        progress = ProgressWatch(self._child.process.pid, self._child.process.kill)
        try:
            with progress, progress.waiting():
                self._child.channel.send(list(pieces))
                answer = self._child.channel.receive()
        except Gone:
            if progress.reason:
                raise ModelFileError(f"a process that helped to convert {progress.reason}") from None
            raise ModelFileError(
                f"a process that helped to convert ended (exit code {self._child.process.wait()}); "
                "see that the machine has memory left, and convert again"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process; what it was told to move is moved or given up."""
        self._child.close()


def copy_all(pieces: Iterator[Piece], output: Path, size_bytes: int) -> Iterator[tuple[Piece, CastFlags]]:
    """Move ``pieces`` into the file ``output`` that becomes ``size_bytes`` large, and yield them in order."""
    copiers: list[_Copier] = []
    free: SimpleQueue[_Copier] = SimpleQueue()

    def move(batch: list[Piece]) -> list[CastFlags]:
        mover = free.get()
        try:
            return mover.move(batch)
        finally:
            free.put(mover)

    processes = min(physical_cores(), _MOST_PROCESSES) if size_bytes >= SHARED_FROM_BYTES else 1
    waiting: deque[tuple[list[Piece], Future[list[CastFlags]]]] = deque()
    pool = ThreadPoolExecutor(processes)
    try:
        copiers.extend(Helper(output) for _ in range(processes - 1))
        copiers.append(PieceCopier(output))
        for mover in copiers:
            free.put(mover)
        while batch := list(islice(pieces, _BATCH)):
            waiting.append((batch, pool.submit(move, batch)))
            if len(waiting) > _AHEAD * processes:
                yield from _result(*waiting.popleft())
        while waiting:
            yield from _result(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
        for mover in copiers:
            mover.close()


def _result(batch: list[Piece], result: Future[list[CastFlags]]) -> Iterator[tuple[Piece, CastFlags]]:
    return zip(batch, result.result(), strict=True)


def serve(output: Path, channel: Channel) -> None:
    """Move the batches that come, and answer each with what was noticed or what went wrong."""
    copier = PieceCopier(output)
    try:
        while True:
            batch = channel.receive()
            answer: list[CastFlags] | Exception
            try:
                answer = copier.move(batch)
            except (ModelFileError, OSError) as error:
                answer = error
            channel.send(answer)
    finally:
        copier.close()
