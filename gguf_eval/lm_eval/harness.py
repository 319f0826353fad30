"""Runs the harness's own command line with our model in it, also where the harness loads no plugins."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gguf_eval.errors import StudyError, UsageError

MODEL_NAME = "gguf-eval"
_DATED = re.compile(r"_(\d{4}-\d\d-\d\dT[\d.-]+)\.json$")
"""The harness's files of one run bear one date."""


def check_installed() -> None:
    """Raise `UsageError` where the harness is not there."""
    try:
        import lm_eval  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise UsageError(
            f"lm-evaluation-harness is needed and is not installed ({error}); pip install 'gguf-eval[lm-eval]'"
        ) from None


def run_harness(model_args: str, options: Sequence[str], output: Path) -> tuple[Path, dict[str, Path]]:
    """Run the harness; return its results file and the samples file of each task by name.

    ``options`` are the harness's own. It prints its table itself. Raises `UsageError` for what the harness refuses.
    """
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import register_model

    from gguf_eval.lm_eval.model import GgufEvalLM

    with contextlib.suppress(ValueError):  # a version that loads plugins knows it already
        register_model(MODEL_NAME)(GgufEvalLM)
    began = time.time() - 1  # file systems round
    arguments = ["--model", MODEL_NAME, "--model_args", model_args, "--output_path", str(output), *options]
    if "--log_samples" not in arguments:
        arguments.append("--log_samples")
    before, sys.argv = sys.argv, ["lm-eval", *arguments]
    try:
        cli_evaluate()
    except ValueError as error:
        raise UsageError(f"lm-evaluation-harness refuses this: {error}") from error
    finally:
        sys.argv = before
    return find_files(output, began)


def find_files(output: Path, since: float) -> tuple[Path, dict[str, Path]]:
    """The newest results file below ``output`` and its samples files; raises `StudyError` where there is none."""
    folder = output.parent if output.suffix == ".json" else output
    dated = [(path, _DATED.search(path.name)) for path in folder.rglob("*.json")]
    found = {match[1]: path for path, match in dated if match and path.stat().st_mtime >= since}
    if not found:
        raise StudyError(f"{folder}: lm-evaluation-harness left no results there, so none can be stored")
    date = max(found)
    ending = f"_{date}.jsonl"
    samples = found[date].parent.rglob(f"samples_*{ending}")
    return found[date], {path.name.removeprefix("samples_").removesuffix(ending): path for path in samples}
