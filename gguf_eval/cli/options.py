"""What the commands share: options spelled alike everywhere, and how answers are printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gguf_eval.errors import UsageError, nearest
from gguf_eval.sizes import parse_size

if TYPE_CHECKING:
    from rich.console import Console

    from gguf_eval.analysis.summary import StudySummary
    from gguf_eval.runtime.settings import ChatSettings, Offload

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
Device = Annotated[
    str,
    typer.Option("--device", "-dev", help="Devices for the layers, as 'doctor' names them.", rich_help_panel=MACHINE),
]
SplitMode = Annotated[
    str,
    typer.Option(
        "--split-mode", "-sm", help="Over several devices: layer, row, tensor, none.", rich_help_panel=MACHINE
    ),
]
TensorSplit = Annotated[
    str, typer.Option("--tensor-split", "-ts", help="Each device's share, for instance 3,1.", rich_help_panel=MACHINE)
]
Rpc = Annotated[
    str,
    typer.Option(
        "--rpc", help="llama.cpp RPC servers, HOST:PORT, whose devices take layers too.", rich_help_panel=MACHINE
    ),
]
NoMmap = Annotated[
    bool, typer.Option("--no-mmap", help="Read the weights instead of mapping the file.", rich_help_panel=MACHINE)
]
CacheTypeK = Annotated[
    str,
    typer.Option(
        "--cache-type-k", "-ctk", help="Types of the KV cache's keys, for instance F16,Q8_0.", rich_help_panel=MACHINE
    ),
]
CacheTypeV = Annotated[
    str,
    typer.Option(
        "--cache-type-v", "-ctv", help="Types of its values; pairs up with the keys.", rich_help_panel=MACHINE
    ),
]
MaxMemory = Annotated[
    str,
    typer.Option(
        "--max-memory",
        help="Memory a worker may take: 6GB or 6G, as reports count; 6GiB (default: all).",
        rich_help_panel=MACHINE,
    ),
]
Chat = Annotated[
    str,
    typer.Option(
        "--chat",
        help="By the model's chat template: auto (where it writes its answer), on, off.",
        rich_help_panel=ASKING,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before a run that is heavy.")]
System = Annotated[str, typer.Option("--system", help="The system message of a conversation.", rich_help_panel=ASKING)]
FewshotAsTurns = Annotated[
    bool,
    typer.Option("--fewshot-as-turns", help="Examples as earlier turns of a conversation.", rich_help_panel=ASKING),
]
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
FlashAttention = Annotated[
    str, typer.Option("--flash-attn", "-fa", help="on, off, or auto (llama.cpp decides).", rich_help_panel=MACHINE)
]


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


def offload_settings(
    gpu_layers: str,
    device: str = "",
    split_mode: str = "layer",
    tensor_split: str = "",
    rpc: str = "",
    no_mmap: bool = False,
) -> Offload:
    """Where layers go, as the options say."""
    from gguf_eval.runtime.settings import SPLIT_MODES, Offload

    if split_mode not in SPLIT_MODES:
        raise UsageError(f"--split-mode needs one of {', '.join(SPLIT_MODES)}; found '{split_mode}'")
    try:
        shares = tuple(float(share) for share in split_names(tensor_split.replace("/", ",")))
    except ValueError:
        raise UsageError(f"--tensor-split needs numbers separated by commas; found '{tensor_split}'") from None
    return Offload(
        gpu_layers=gpu_layer_count(gpu_layers),
        devices=tuple(split_names(device)),
        split_mode=split_mode,
        tensor_split=shares,
        rpc=tuple(split_names(rpc)),
        mmap=not no_mmap,
    )


def cache_type_pairs(keys: str, values: str) -> tuple[tuple[str, str], ...]:
    """The KV cache types to try, (keys, values): lists of one length pair up, a single one goes with each."""
    from gguf_eval.runtime.settings import CACHE_TYPES

    lists = []
    for option, text in (("--cache-type-k", keys), ("--cache-type-v", values)):
        names = [name.upper() for name in split_names(text)] or ["F16"]
        for name in names:
            if name not in CACHE_TYPES:
                raise UsageError(f"{option}: no KV cache type is called '{name}'{nearest(name, CACHE_TYPES)}")
        lists.append(names)
    first, second = lists
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        raise UsageError(
            f"--cache-type-k and --cache-type-v need lists of one length, or one of them a single type; "
            f"found {len(first)} and {len(second)}"
        )
    most = max(len(first), len(second))
    return tuple(zip(first * (most // len(first)), second * (most // len(second)), strict=True))


def memory_bytes(text: str) -> int | None:
    """Bytes that ``--max-memory`` allows; None where nothing is said."""
    if not text:
        return None
    size = parse_size(text)
    if size is None:
        raise UsageError(f"--max-memory needs a size like 800MB, 6GB or 5.5GiB; found '{text}'")
    return size


def flash_attention_number(text: str) -> int:
    """llama.cpp's number for ``--flash-attn``."""
    numbers = {"on": 1, "1": 1, "off": 0, "0": 0, "auto": -1}
    if text.lower() not in numbers:
        raise UsageError(f"--flash-attn needs on, off or auto; found '{text}'")
    return numbers[text.lower()]


def chat_settings(mode: str, system: str, fewshot_as_turns: bool) -> ChatSettings:
    """The settings that --chat, --system and --fewshot-as-turns make."""
    from gguf_eval.runtime.settings import CHAT_MODES, ChatSettings

    for known in CHAT_MODES:
        if mode == known:
            if mode == "off" and (system or fewshot_as_turns):
                raise UsageError("--system and --fewshot-as-turns need a conversation; found --chat off: leave it out")
            return ChatSettings(known, system, fewshot_as_turns)
    raise UsageError(f"--chat needs one of {', '.join(CHAT_MODES)}; found '{mode}'")


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
        typer.echo(f"gguf-eval: warning: {warning}", err=True)


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
