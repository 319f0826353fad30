"""What a worker process is asked to do: self-contained, serialisable descriptions with one result stream each.

A job is one JSON document; its results are JSON lines, each an object with an ``event``. Nothing else passes between
parent and worker, so that a job can be run anywhere the model file is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gguf_eval.runtime.settings import EngineSettings, Offload, engine_from_document, offload_from_document


@dataclass(frozen=True)
class ScoreJob:
    """Score the choices of items. Events: ``build``, ``start``, ``scores``."""

    model: str
    tasks: tuple[TaskWork, ...]
    max_tokens: int | None
    batch_size: int
    threads: int | None
    engine: EngineSettings
    kind: Literal["score"] = "score"


@dataclass(frozen=True)
class TaskWork:
    """Items of one task: for each item the (context, continuation) pairs of its choices."""

    task_hash: str
    item_hashes: tuple[str, ...]
    pairs: tuple[tuple[tuple[str, str], ...], ...]


@dataclass(frozen=True)
class SpeedJob:
    """Measure speed and peak memory. Events: ``build``, ``sample``, ``memory``."""

    model: str
    n_ctx: int
    prompt_tokens: int
    generated_tokens: int
    repetitions: int
    threads: int | None
    engine: EngineSettings
    kind: Literal["speed"] = "speed"


@dataclass(frozen=True)
class QuantizeJob:
    """Make a model file of a level. Events: none; it is there when the job ends well."""

    source: str
    output: str
    level: str
    allow_requantize: bool
    threads: int | None
    kind: Literal["quantize"] = "quantize"


@dataclass(frozen=True)
class BuildJob:
    """Say which llama.cpp this is and what devices it finds. Events: ``build``, ``devices``."""

    offload: Offload = field(default_factory=Offload)
    """Refused where it can't be had."""
    kind: Literal["build"] = "build"


Job = ScoreJob | SpeedJob | QuantizeJob | BuildJob


def to_document(job: Job) -> dict[str, Any]:
    """The job as JSON-ready values."""
    return asdict(job)


def from_document(document: dict[str, Any]) -> Job:
    """The job that `to_document` wrote, after JSON has made lists of its tuples."""
    kinds: dict[str, type[Job]] = {"score": ScoreJob, "speed": SpeedJob, "quantize": QuantizeJob, "build": BuildJob}
    fields = dict(document)
    if "engine" in fields:
        fields["engine"] = engine_from_document(fields["engine"])
    if "offload" in fields:
        fields["offload"] = offload_from_document(fields["offload"])
    if fields["kind"] == "score":
        fields["tasks"] = tuple(
            TaskWork(
                work["task_hash"],
                tuple(work["item_hashes"]),
                tuple(tuple((context, continuation) for context, continuation in item) for item in work["pairs"]),
            )
            for work in fields["tasks"]
        )
    return kinds[fields["kind"]](**fields)
