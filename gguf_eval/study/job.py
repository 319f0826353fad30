"""A job: what a worker process is asked to do, and how it gets there.

A job is a frozen dataclass that holds everything it needs. The worker's side is ``work(job, emit)`` in the module that
declares it, or in the one that its class variable ``worker`` names. A job travels as one JSON line; its results are
JSON lines, each an object with an ``event``. Nothing else passes between parent and worker, so that a job can be run
anywhere the model file is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field
from importlib import import_module
from typing import Any, ClassVar, Protocol

import msgspec

_ROOM = "gguf_eval.study."

Emit = Callable[[dict[str, Any]], None]
"""Sends one event to the parent."""

OnEvent = Callable[[dict[str, Any]], None]
"""Is given one event by the worker."""


class Job(Protocol):
    """Any of them."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def encode_job(job: Job) -> bytes:
    """The job as a line of JSON, without its end."""
    kind = type(job)
    return msgspec.json.encode({"module": kind.__module__, "name": kind.__qualname__, "job": job})


def decode_job(line: bytes) -> Job:
    """The job that `encode_job` wrote. Raises `ValueError` for one that is none of this package's."""
    document = msgspec.json.decode(line)
    if not document["module"].startswith(_ROOM):
        raise ValueError(f"a job of {_ROOM}* is needed, found one of {document['module']}")
    job: Job = msgspec.convert(document["job"], getattr(import_module(document["module"]), document["name"]))
    return job


def do(job: Job, emit: Emit) -> None:
    """Do the job in this process."""
    import_module(getattr(job, "worker", type(job).__module__)).work(job, emit)
