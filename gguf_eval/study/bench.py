"""Measures speed and memory alone: a run without tasks that times everything anew."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from gguf_eval.store.read import read_study
from gguf_eval.store.records import StudyRecord
from gguf_eval.study.events import Observer
from gguf_eval.study.plan import make_plan
from gguf_eval.study.points import RunRequest
from gguf_eval.study.run import run_study


def bench(request: RunRequest, observer: Observer) -> tuple[StudyRecord, bool]:
    """Measure every point; return what the study holds then, and whether all could be measured.

    Without a study file in ``request`` (an empty path) the repetitions are kept in a temporary one.
    """
    if request.study != Path():
        complete = run_study(make_plan(request), observer)
        return read_study(request.study), complete
    with tempfile.TemporaryDirectory() as folder:
        request = replace(request, study=Path(folder) / "bench.sqlite")
        complete = run_study(make_plan(request), observer)
        return read_study(request.study), complete
