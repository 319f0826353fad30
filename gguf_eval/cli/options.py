"""What the commands share: options, spelled alike everywhere, and what is made of their texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from gguf_eval.cli.printing import warn
from gguf_eval.errors import UsageError
from gguf_eval.sizes import parse_size

if TYPE_CHECKING:
    from gguf_eval.tasks.datasets import Fetch

app = typer.Typer(
    name="gguf-eval",
    help="Which size, at which quantization level, should I run on this machine, and what do I lose?",
    add_completion=False,
    pretty_exceptions_enable=False,
)
"""The program; every module of this room adds its commands."""

machine = partial(Option, rich_help_panel="How models run")
asking = partial(Option, rich_help_panel="How items are asked")
over_text = partial(Option, rich_help_panel="Over a text")
"""Make an option under a heading of its own in --help."""

MODELS_HELP = "GGUF files, checkpoint folders, or on the hub owner/name, owner/name:LEVEL or owner/name/file.gguf."
NAMED_MODELS_HELP = (
    f"{MODELS_HELP} Levels of one model are compared with each other: what the files hold says which are. "
    "NAME=FILE says it by hand: files of one NAME are one model."
)
Json = Annotated[bool, Option("--json", help="Print one JSON document instead of the report.")]
Levels = Annotated[
    str,
    Option("--levels", "-q", help="Levels and recipes (names or files) to make, for instance Q2_K,Q4_K_L,mine.toml."),
]
Tasks = Annotated[str, Option("--tasks", "-t", help="Tasks, suites or task files, separated by commas.")]
Limit = Annotated[int | None, Option("--limit", "-n", min=1, help="Items of each task: a random subset.")]
Threads = Annotated[int | None, machine("--threads", min=1, help="Threads (default: physical cores).")]
Study = Annotated[Path | None, Option("--study", help="The study file (default: MODEL.study.sqlite).")]
GpuLayers = Annotated[
    str, machine("--gpu-layers", "-ngl", help="Layers on devices: auto (as many as fit), all, or a number.")
]
Rpc = Annotated[str, machine("--rpc", help="llama.cpp RPC servers, HOST:PORT, whose devices take layers too.")]
Yes = Annotated[bool, Option("--yes", "-y", help="Don't ask before a run that is heavy.")]
Fewshot = Annotated[
    int | None, asking("--fewshot", min=0, help="Another number of examples, for tasks that have examples.")
]
MinCtx = Annotated[
    int | None,
    machine(
        "--min-ctx",
        "--fit-ctx",
        "-fitc",
        min=16,
        help="Let speed and memory be measured with a context down to this where more layers, or the model, fit then.",
    ),
]
Mirror = Annotated[Path | None, Option("--mirror", help="A local copy of the hub's Parquet files, instead of the hub.")]
Margin = Annotated[float, Option("--margin", min=0.0, help="Points within which two scores are the same.")]
NoColor = Annotated[bool, Option("--no-color", help="No colour (NO_COLOR does the same).")]


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
    from gguf_eval.report.progress import byte_progress

    path, warnings = model_source(reference, cache=cache_dir(cache), show=byte_progress)
    warn(warnings)
    return path


def fetch_from(folder: Path | None) -> Fetch:
    """What gets the rows of datasets: from a local copy, or the hub where none is given."""
    from gguf_eval.files.hub_datasets import dataset_files
    from gguf_eval.tasks.datasets import mirror

    return mirror(folder) if folder else dataset_files


def named_model_paths(references: Sequence[str], cache: Path | None) -> tuple[tuple[Path, ...], dict[Path, str]]:
    """The GGUFs that references stand for, and the names that ``NAME=REFERENCE`` gives some of their models."""
    from gguf_eval.files.references import split_name

    named = [split_name(reference) for reference in references]
    paths = tuple(model_source_path(reference, cache) for _, reference in named)
    return paths, {path: name for path, (name, _) in zip(paths, named, strict=True) if name}
