"""Decodes for a few seconds, to say how fast a model file is here."""

from __future__ import annotations

from pathlib import Path

from gguf_eval.runtime.model import Context
from gguf_eval.runtime.placement import open_model
from gguf_eval.runtime.settings import ContextSettings
from gguf_eval.runtime.speed import SpeedTest, measure_speed
from gguf_eval.study.jobs import CalibrateJob
from gguf_eval.study.workers.emit import Emit

TOGETHER = 16
"""Tokens of a decode that stands for one step of as many answers written side by side."""
_MOST_PROMPT, _MOST_WRITTEN = 256, 24
_PROMPT_SECONDS, _WRITTEN_SECONDS = 0.8, 0.5


def run(job: CalibrateJob, emit: Emit) -> None:
    """Do the job in this process."""
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
    sample = next(measure_speed(context, [test], repetitions=1))
    return sample.tokens / sample.seconds
