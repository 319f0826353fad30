"""The stages of a point, in the order they are done; a text goes over all points of a model at the end of a run."""

from __future__ import annotations

from typing import Protocol

from gguf_eval.store.database import StudyLookup
from gguf_eval.study.events import StagePlan
from gguf_eval.study.stages import generate, score, speed
from gguf_eval.study.stages.reference import ModelPoints
from gguf_eval.study.stages.state import Asked, FoundPoint, ReadyPoint, RunState


class Stage(Protocol):
    """A module of this folder; its job and the worker's side are in it too."""

    def plan(
        self, asked: Asked, point: FoundPoint, model: ModelPoints[FoundPoint], lookup: StudyLookup
    ) -> list[StagePlan]:
        """Say what is to be done for the point, what of it the study holds, and how long it takes."""
        ...

    def run(self, state: RunState, point: ReadyPoint, model: ModelPoints[ReadyPoint]) -> None:
        """Do what is missing, and store it as it comes."""
        ...


STAGES: tuple[Stage, ...] = (score, generate, speed)
