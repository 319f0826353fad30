"""Decodes for a few seconds, to say how fast a model file is here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_eval.files.model_file import ModelFile
from gguf_eval.runtime.settings import EngineSettings
from gguf_eval.study.cost import CHARACTERS_PER_TOKEN, Rates
from gguf_eval.study.job import Emit
from gguf_eval.study.process import run_in_worker

if TYPE_CHECKING:
    from gguf_eval.runtime.model import Context
    from gguf_eval.runtime.speed import SpeedTest

TOGETHER = 16
"""Tokens of a decode that stands for one step of as many answers written side by side."""
_MOST_PROMPT, _MOST_WRITTEN = 256, 24
_PROMPT_SECONDS, _WRITTEN_SECONDS = 0.8, 0.5


@dataclass(frozen=True)
class CalibrateJob:
    """Decode for a few seconds. Events: ``ready``, ``rates``."""

    model: str
    threads: int | None
    engine: EngineSettings
    text: str
    """What is asked, some of it: how many characters a token stands for."""


def calibrated_rates(file: ModelFile, threads: int | None, engine: EngineSettings, text: str, log: Path) -> Rates:
    """Rates of a model file, from decoding in a worker for a few seconds. Raises as `run_in_worker` does."""
    found: dict[str, Any] = {}
    began = time.monotonic()

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "ready":
            found["start"] = time.monotonic() - began
        found.update(event)

    run_in_worker(CalibrateJob(str(file.path), threads, engine, text), log, on_event)
    return Rates(
        file.parameters, file.size_bytes, found["prompt"], found["together"], found["alone"], found["start"],
        "calibrated", len(text) / found["tokens"] if found["tokens"] else CHARACTERS_PER_TOKEN,
    )  # fmt: skip


def work(job: CalibrateJob, emit: Emit) -> None:
    """The worker's side."""
    from gguf_eval.runtime.placement import open_model
    from gguf_eval.runtime.settings import ContextSettings
    from gguf_eval.runtime.speed import SpeedTest

    settings = ContextSettings(
        n_ctx=_MOST_PROMPT + TOGETHER, batch_size=_MOST_PROMPT, ubatch_size=_MOST_PROMPT, threads=job.threads
    ).with_engine(job.engine)
    with open_model(Path(job.model), job.engine, settings) as model, model.open_context(settings) as context:
        emit({"event": "ready"})
        together = _rate(context, SpeedTest("pp", TOGETHER))
        length = max(TOGETHER, min(_MOST_PROMPT, int(together * _PROMPT_SECONDS)))
        prompt = _rate(context, SpeedTest("pp", length))
        first = _rate(context, SpeedTest("tg", 2))
        alone = _rate(context, SpeedTest("tg", max(2, min(_MOST_WRITTEN, int(first * _WRITTEN_SECONDS)))))
        emit({
            "event": "rates", "prompt": prompt, "together": together, "alone": alone,
            "tokens": len(model.tokenize(job.text)),
        })  # fmt: skip


def _rate(context: Context, test: SpeedTest) -> float:
    """Tokens a second of one repetition, after the warm-up."""
    from gguf_eval.runtime.speed import measure_speed

    sample = next(measure_speed(context, [test], repetitions=1))
    return sample.tokens / sample.seconds
