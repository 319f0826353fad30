"""The commands that make and inspect model files: convert, quantize, imatrix, inspect, recipes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer import Argument, Option

from gguf_eval.cli import options
from gguf_eval.cli.printing import answer, say, warn
from gguf_eval.errors import UsageError, nearest

R = TypeVar("R")
recipes_app = typer.Typer(help="List the quantization recipes and ladders that ship, show one.")
options.app.add_typer(recipes_app, name="recipes")


@options.app.command()
def convert(
    source: Annotated[
        str, Argument(help="A checkpoint folder, or a hub repository: owner/name or owner/name@revision.")
    ],
    *,
    output: Annotated[
        Path | None, Option("-o", "--output", help="The model file to write, or a folder for it.")
    ] = None,
    outtype: Annotated[str, Option(help="auto (the weights' own 16-bit type), f32, f16, bf16 or q8_0.")] = "auto",
    strict: Annotated[bool, Option("--strict", help="Refuse NaN or infinite weights instead of warning.")] = False,
    dry_run: Annotated[
        bool,
        Option(
            "--plan",
            "--dry-run",
            help="Say what would be written, and write nothing (a hub model's weights stay there).",
        ),
    ] = False,
    json_output: options.Json = False,
) -> None:
    """Make a model file (GGUF) from a Llama, Mistral or Mixtral checkpoint."""
    from gguf_eval.files.convert.plan import plan_conversion
    from gguf_eval.files.convert.write import output_path, write
    from gguf_eval.report.model_files import conversion_document, conversion_text
    from gguf_eval.report.progress import byte_progress

    plan = plan_conversion(source, outtype, headers_only=dry_run)
    if dry_run:
        warn(plan.warnings)
        answer(json_output, conversion_document(plan), conversion_text(plan))
        return
    path = output_path(plan, output)
    with byte_progress(path.name) as progress:
        result = write(plan, path, strict=strict, progress=progress)
    warn(result.warnings)
    text = f"{path}: {result.out_type}, {result.tensors} tensors, {result.size_bytes:,} bytes"
    answer(json_output, {**asdict(result), "path": str(path)}, text)


@options.app.command()
def quantize(
    source: Annotated[str, Argument(help="A model in F32, F16 or BF16: what 'run' takes.")],
    levels: options.Levels = "",
    recipe: Annotated[list[str] | None, Option(help="A recipe's name or TOML file; may be repeated.")] = None,
    ladder: Annotated[str, Option(help="A list of recipes: quick, standard, full or paper.")] = "",
    output: Annotated[Path, Option("--output", "-o", help="Folder for the files made.")] = Path(),
    imatrix: Annotated[Path | None, Option(help="An importance matrix to quantize with.")] = None,
    allow_requantize: Annotated[
        bool, Option("--allow-requantize", help="Take a source that is quantized already.")
    ] = False,
    plan: Annotated[
        bool, Option("--plan", "--dry-run", help="Say what would be made, with exact sizes, and make nothing.")
    ] = False,
    force: Annotated[bool, Option("--force", help="Replace files of another origin.")] = False,
    threads: options.Threads = None,
    json_output: options.Json = False,
) -> None:
    """Make quantization levels of a model. Files that were made from the same things before are kept."""
    from gguf_eval.files.batch import LevelsRequest, Step, make_all, plan_all
    from gguf_eval.files.recipes import find_ladder, find_recipe
    from gguf_eval.report.model_files import disk_free, disk_text, step_lines, steps_json, steps_text

    chosen = [find_recipe(name) for name in (*options.split_names(levels), *(recipe or []))]
    recipes = dict.fromkeys((*chosen, *(find_ladder(ladder) if ladder else ())))
    if not recipes:
        raise UsageError("levels are needed; name them with -q Q4_K_M,Q8_0, --recipe FILE or --ladder standard")
    file = options.model_source_path(source, None)
    request = LevelsRequest(
        source=file,
        folder=output,
        recipes=tuple(recipes),
        imatrix=imatrix,
        allow_requantize=allow_requantize,
        skip_without_imatrix=bool(ladder),
        force=force,
        threads=threads,
    )

    def tell(step: Step) -> None:
        for line in step_lines(step, plan):
            say(line, err=True)

    steps = _isolated(plan_all if plan else make_all, request, folder=output, on_progress=tell)
    free = disk_free(output)
    text = steps_text(steps) + (f"\n{disk_text(steps, free)}" if plan else "")
    answer(json_output, {"source": str(file), "steps": steps_json(steps), "disk_free_bytes": free}, text)


@options.app.command()
def imatrix(
    model: Annotated[str, Argument(help="A model of the highest precision there is: what 'run' takes.")],
    text: Annotated[
        str, Option(help="A text file, or owner/name:config/split:column on the hub (default: shipped).")
    ] = "",
    output: Annotated[Path | None, Option("--output", "-o", help="File (default: MODEL.imatrix.gguf).")] = None,
    chunks: Annotated[int | None, Option(min=1, help="Chunks to use (default: all).")] = None,
    ctx: Annotated[int, Option("--ctx", "-c", min=32, help="Tokens of a chunk.")] = 512,
    with_output: Annotated[bool, Option("--process-output", help="Collect for the output matrix too.")] = False,
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = "all",
    json_output: options.Json = False,
) -> None:
    """Make an importance matrix: which weights matter on a text. An interrupted run goes on where it was."""
    from gguf_eval.files.imatrix import ImatrixRequest, make_imatrix
    from gguf_eval.files.model_file import model_name
    from gguf_eval.report.model_files import ChunkLine, imatrix_json, imatrix_text

    dataset, content = _calibration(text)
    path = options.model_source_path(model, None)
    target = output or Path(f"{model_name(path)}.imatrix.gguf")
    layers = options.gpu_layer_count(gpu_layers)
    request = ImatrixRequest(
        model=path,
        text=content,
        dataset=dataset,
        output=target,
        chunks=chunks,
        chunk_tokens=ctx,
        with_output=with_output,
        threads=threads,
        gpu_layers=-1 if layers is None else layers,
    )
    made = _isolated(make_imatrix, request, folder=target.parent, on_progress=ChunkLine(sys.stderr))
    answer(json_output, imatrix_json(target, made), imatrix_text(target, made))


@options.app.command()
def inspect(
    file: Annotated[str, Argument(help="A GGUF, here or on the hub: owner/name:LEVEL or owner/name/file.gguf.")],
    ctx: Annotated[
        int | None, Option("--ctx", "-c", min=1, help="Context for the memory predicted (default: the model's).")
    ] = None,
    cache_type: Annotated[
        str, Option("--cache-type", "--cache-type-k", "-ctk", help="Storage type of the KV cache.")
    ] = "F16",
    cache_type_v: Annotated[
        str | None, Option("--cache-type-v", "-ctv", help="The same of its values, where it differs.")
    ] = None,
    json_output: options.Json = False,
) -> None:
    """Show what a model file says of itself, and the memory it will need. No weights are read."""
    from dataclasses import replace

    from gguf_eval.files.footprint import predict_footprint
    from gguf_eval.files.kinds import other_kind
    from gguf_eval.files.remote import inspect_headers
    from gguf_eval.report.model_files import inspection, inspection_text
    from gguf_eval.runtime.settings import CPU_ONLY, EngineSettings
    from gguf_eval.study.doctor import build_features
    from gguf_eval.study.footprint import local_footprint

    headers, size_bytes = inspect_headers(file)
    # Checked before a process is started for the features of this build.
    footprint = predict_footprint(headers, ctx, cache_type=cache_type, cache_type_v=cache_type_v)
    kind = other_kind(headers)
    if kind is not None:
        footprint = replace(footprint, notes=(*footprint.notes, f"can't be asked how a text goes on: {kind.text}"))
    elif Path(file).exists():
        types = (cache_type.upper(), (cache_type_v or cache_type).upper())
        footprint = local_footprint(Path(file), ctx, EngineSettings(CPU_ONLY, *types), footprint)
    else:
        footprint = predict_footprint(
            headers, ctx, cache_type=cache_type, cache_type_v=cache_type_v, features=build_features()
        )
    found = inspection(headers, size_bytes, footprint)
    answer(json_output, found, inspection_text(found))


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context) -> None:
    """List the quantization recipes and ladders that ship, show one."""
    if context.invoked_subcommand is None:
        list_recipes()


@recipes_app.command("list")
def list_recipes() -> None:
    """List the quantization recipes and ladders that ship."""
    from gguf_eval.files.recipes import ladders, shipped_recipes
    from gguf_eval.report.model_files import recipes_text

    say(recipes_text(shipped_recipes(), ladders()))


@recipes_app.command("show")
def show_recipe(
    name: Annotated[str, Argument(help="A recipe's name, or the path of a recipe file.")],
) -> None:
    """Print a recipe as a file: what to begin one of your own with."""
    from gguf_eval.files.recipes import find_recipe
    from gguf_eval.report.model_files import recipe_toml

    say(recipe_toml(find_recipe(name)))


def _isolated(function: Callable[..., R], request: object, *, folder: Path, on_progress: Callable[[Any], None]) -> R:
    from gguf_eval.files.cache import cache_dir
    from gguf_eval.llama.isolated import run_isolated

    log = cache_dir() / "logs" / f"{function.__name__}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    return run_isolated(function, request, log=log, folder=folder, on_progress=on_progress)


def _calibration(text: str) -> tuple[str, str]:
    """The name of a calibration text and the text: shipped, from a file, or a column of a hub dataset."""
    from gguf_eval.files.imatrix import read_text
    from gguf_eval.files.recipes import calibration_text

    if not text:
        return "gguf-eval calibration text", read_text(calibration_text())
    if Path(text).is_file() or ":" not in text:
        return Path(text).name, read_text(Path(text))
    from gguf_eval.files.hub_datasets import dataset_files
    from gguf_eval.tasks.datasets import hub_rows

    repo, _, rest = text.partition(":")
    inside, _, column = rest.partition(":")
    config, _, split = inside.rpartition("/")
    if not (repo and config and split and column):
        raise UsageError(f"--text: a file, or owner/name:config/split:column, is needed; found '{text}'")
    rows = hub_rows(repo, config, split, dataset_files)
    if rows and column not in rows[0]:
        raise UsageError(f"--text: {repo} has no column '{column}'{nearest(column, rows[0])}")
    return text, "\n".join(str(row[column]).removesuffix("\n") for row in rows)
