"""What the commands share: options spelled alike everywhere, and how answers are printed."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO, cast

import typer

from gguf_eval.errors import UsageError
from gguf_eval.sizes import parse_size

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

MACHINE, ASKING, OVER_TEXT = "How models run", "How items are asked", "Over a text"
"""Headings of options in --help."""

MODELS_HELP = "GGUF files, checkpoint folders, or on the hub owner/name, owner/name:LEVEL or owner/name/file.gguf."
NAMED_MODELS_HELP = (
    f"{MODELS_HELP} Levels of one model are compared with each other: what the files hold says which are. "
    "NAME=FILE says it by hand: files of one NAME are one model."
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the report.")]
Levels = Annotated[
    str,
    typer.Option(
        "--levels", "-q", help="Levels and recipes (names or files) to make, for instance Q2_K,Q4_K_L,mine.toml."
    ),
]
Tasks = Annotated[str, typer.Option("--tasks", "-t", help="Tasks, suites or task files, separated by commas.")]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Items of each task: a random subset.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads (default: physical cores).", rich_help_panel=MACHINE)
]
Study = Annotated[Path | None, typer.Option("--study", help="The study file (default: MODEL.study.sqlite).")]
GpuLayers = Annotated[
    str,
    typer.Option(
        "--gpu-layers",
        "-ngl",
        help="Layers on devices: auto (as many as fit), all, or a number.",
        rich_help_panel=MACHINE,
    ),
]
Rpc = Annotated[
    str,
    typer.Option(
        "--rpc", help="llama.cpp RPC servers, HOST:PORT, whose devices take layers too.", rich_help_panel=MACHINE
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before a run that is heavy.")]
Fewshot = Annotated[
    int | None,
    typer.Option(
        "--fewshot", min=0, help="Another number of examples, for tasks that have examples.", rich_help_panel=ASKING
    ),
]
MinCtx = Annotated[
    int | None,
    typer.Option(
        "--min-ctx",
        "--fit-ctx",
        "-fitc",
        min=16,
        help="Let speed and memory be measured with a context down to this where more layers, or the model, fit then.",
        rich_help_panel=MACHINE,
    ),
]
Margin = Annotated[float, typer.Option("--margin", min=0.0, help="Points within which two scores are the same.")]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colour (NO_COLOR does the same).")]


def split_names(names: str) -> list[str]:
    """Names separated by commas, without blanks."""
    return [name.strip() for name in names.split(",") if name.strip()]


def gpu_layer_count(text: str) -> int | None:
    """The number of layers that ``--gpu-layers`` asks for; -1 means all, None as many as fit."""
    if text.lower() in ("all", "auto"):
        return -1 if text.lower() == "all" else None
    if text.isdigit():
        return int(text)
    raise UsageError(f"--gpu-layers needs 'auto', 'all' or a number of layers; found '{text}'")


def memory_bytes(text: str) -> int | None:
    """Bytes that ``--max-memory`` allows; None where nothing is said."""
    if not text:
        return None
    size = parse_size(text)
    if size is None:
        raise UsageError(f"--max-memory needs a size like 800MB, 6GB or 5.5GiB; found '{text}'")
    return size


def model_source_path(reference: str, cache: Path | None) -> Path:
    """The GGUF that a file, a checkpoint folder or a hub name stands for; fetched or converted where it is not here."""
    from gguf_eval.files.cache import cache_dir
    from gguf_eval.files.source import model_source
    from gguf_eval.report.conversion import byte_progress

    path, warnings = model_source(reference, cache=cache_dir(cache), show=byte_progress)
    warn(warnings)
    return path


def named_model_paths(references: Sequence[str], cache: Path | None) -> tuple[tuple[Path, ...], dict[Path, str]]:
    """The GGUFs that references stand for, and the names that ``NAME=REFERENCE`` gives some of their models."""
    from gguf_eval.files.references import split_name

    named = [split_name(reference) for reference in references]
    paths = tuple(model_source_path(reference, cache) for _, reference in named)
    return paths, {path: name for path, (name, _) in zip(paths, named, strict=True) if name}


def warn(warnings: tuple[str, ...]) -> None:
    """Print warnings to standard error."""
    for warning in warnings:
        say(f"gguf-eval: warning: {warning}", err=True)


def say(text: str, *, err: bool = False) -> None:
    """Print lines as they are: names and texts in them may come from files, and must not steer the terminal."""
    print(_shown(text), file=sys.stderr if err else sys.stdout)


def _shown(text: str) -> str:
    from gguf_eval.report.escape import plain

    return "".join(part if part in ("\n", "\t") else plain(part) for part in re.split(r"([\n\t])", text))


class _Shown(io.TextIOBase):
    """Writes to a terminal what `say` would print."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal

    def write(self, text: str) -> int:
        return self._terminal.write(_shown(text))


def data_stream() -> TextIO:
    """Standard output for data: as it is where a program or a file takes it, harmless where a terminal does."""
    return cast("TextIO", _Shown(sys.stdout)) if sys.stdout.isatty() else sys.stdout


def piped() -> bool:
    """Whether answers go where lines may be as long as they need to be."""
    return not sys.stdout.isatty() and "COLUMNS" not in os.environ


def stdout(*, no_color: bool = False) -> Console:
    """The console for answers: plain and wide when piped."""
    from rich.console import Console

    width = 160 if piped() else None
    return Console(width=width, highlight=False, no_color=no_color or None)


def print_json(document: object) -> None:
    """Print one JSON document; characters that a terminal would obey are escaped."""
    from gguf_eval.report.escape import json_text

    sys.stdout.write(json_text(document) + "\n")


def print_summary(summary: StudySummary, json_output: bool) -> None:
    """Print the report of a study, or its JSON document."""
    if json_output:
        from gguf_eval.report.export import to_document

        print_json(to_document(summary))
        return
    from gguf_eval.report.terminal import print_report

    print_report(summary, stdout(), complete=piped())
