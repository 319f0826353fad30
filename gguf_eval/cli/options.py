"""What the commands share: options spelled alike everywhere, and how answers are printed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gguf_eval.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from gguf_eval.analysis.summary import StudySummary

app = typer.Typer(
    name="gguf-eval",
    help="Which size, at which quantization level, should I run on this machine, and what do I lose?",
    add_completion=False,
    pretty_exceptions_enable=False,
)
"""The program; every module of this room adds its commands."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the report.")]
Levels = Annotated[
    str, typer.Option("--levels", "-q", help="Levels to make and compare, for instance Q2_K,Q4_K_M,F16.")
]
Tasks = Annotated[str, typer.Option("--tasks", "-t", help="Tasks, suites or task files, separated by commas.")]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Items of each task: a random subset.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads (default: physical cores).")]
Study = Annotated[Path | None, typer.Option("--study", help="The study file (default: MODEL.study.sqlite).")]
GpuLayers = Annotated[str, typer.Option("--gpu-layers", "-ngl", help="Layers on the GPU: all or a number.")]


def split_names(names: str) -> list[str]:
    """Names separated by commas, without blanks."""
    return [name.strip() for name in names.split(",") if name.strip()]


def gpu_layer_count(text: str) -> int:
    """The number of layers that ``--gpu-layers`` asks for; -1 means all."""
    if text.lower() == "all":
        return -1
    if text.isdigit():
        return int(text)
    raise UsageError(f"--gpu-layers needs 'all' or a number of layers; found '{text}'")


def model_source_path(reference: str, cache: Path | None) -> Path:
    """The GGUF that a file, checkpoint folder or hub name stands for; a checkpoint is converted once."""
    from gguf_eval.files.cache import cache_dir
    from gguf_eval.files.source import model_source
    from gguf_eval.report.conversion import byte_progress

    path, warnings = model_source(reference, cache=cache_dir(cache), show=byte_progress)
    warn(warnings)
    return path


def warn(warnings: tuple[str, ...]) -> None:
    """Print warnings to standard error."""
    for warning in warnings:
        typer.echo(f"gguf-eval: warning: {warning}", err=True)


def stdout() -> Console:
    """The console for answers: plain and wide when piped."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    return Console(width=width, highlight=False)


def print_json(document: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def print_summary(summary: StudySummary, json_output: bool) -> None:
    """Print the report of a study, or its JSON document."""
    if json_output:
        from gguf_eval.report.export import to_document

        sys.stdout.write(json.dumps(to_document(summary), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return
    from gguf_eval.report.terminal import print_report

    print_report(summary, stdout())
