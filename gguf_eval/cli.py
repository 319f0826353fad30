"""The command line: reads options, calls one function, prints what it returns."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import typer.exceptions

from gguf_eval.errors import GgufEvalError, UsageError, nearest

if TYPE_CHECKING:
    from rich.console import Console

    from gguf_eval.analysis.summary import StudySummary
    from gguf_eval.study.plan import RunRequest

app = typer.Typer(
    name="gguf-eval",
    help="Which size, at which quantization level, should I run on this machine, and what do I lose?",
    add_completion=False,
    pretty_exceptions_enable=False,
)

R = TypeVar("R")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the report.")]
Levels = Annotated[
    str, typer.Option("--levels", "-q", help="Levels to make and compare, for instance Q2_K,Q4_K_M,F16.")
]
Tasks = Annotated[str, typer.Option("--tasks", "-t", help="Tasks, suites or task files, separated by commas.")]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Items of each task: a random subset.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads (default: physical cores).")]
Study = Annotated[Path | None, typer.Option("--study", help="The study file (default: MODEL.study.sqlite).")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        print(f"gguf-eval {installed_version('gguf-eval')}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def run(
    models: Annotated[
        list[str], typer.Argument(help="GGUF files, checkpoint folders, or owner/name on the hub.", show_default=False)
    ],
    levels: Levels = "",
    tasks: Tasks = "offline",
    limit: Limit = None,
    study: Study = None,
    ctx: Annotated[int | None, typer.Option("--ctx", "-c", min=16, help="Context in tokens.")] = None,
    threads: Threads = None,
    gpu_layers: Annotated[
        str, typer.Option("--gpu-layers", "-ngl", help="Layers on the GPU: all or a number.")
    ] = "all",
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=32, help="Tokens of one decode.")] = 512,
    seed: Annotated[int, typer.Option("--seed", help="Chooses the items of --limit.")] = 0,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Measure speed and memory.")] = True,
    repetitions: Annotated[int, typer.Option("--repetitions", "-r", min=1, help="Timed runs of each speed test.")] = 3,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Make levels from a file that is quantized already.")
    ] = False,
    cache_dir: Annotated[Path | None, typer.Option("--cache-dir", help="Where made files are kept.")] = None,
    mirror: Annotated[
        Path | None, typer.Option("--mirror", help="A local copy of the hub's Parquet files, instead of the hub.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Evaluate models at quantization levels, and report. Run it again to resume."""
    from gguf_eval.files.model_file import model_name
    from gguf_eval.study.plan import RunRequest

    files = [_model_source(model, cache_dir) for model in models]
    request = RunRequest(
        models=tuple(files),
        study=study or Path(f"{model_name(files[0])}.study.sqlite"),
        levels=tuple(_split(levels)),
        tasks=tuple(_split(tasks)),
        limit=limit,
        seed=seed,
        allow_requantize=allow_requantize,
        speed=speed,
        repetitions=repetitions,
        ctx=ctx,
        batch_size=batch_size,
        threads=threads,
        gpu_layers=_gpu_layers(gpu_layers),
        cache=cache_dir,
        mirror=mirror,
        command=shlex.join(["gguf-eval", *sys.argv[1:]]),
    )
    _run(request, json_output)


@app.command()
def demo(
    study: Annotated[Path, typer.Option("--study", help="The study file.")] = Path("demo.study.sqlite"),
    threads: Threads = None,
    json_output: Json = False,
) -> None:
    """Compare four levels of a small model that comes with the 'demo' extra: no network, a few minutes."""
    from gguf_eval.study.demo import demo_request

    _run(demo_request(study, threads, shlex.join(["gguf-eval", *sys.argv[1:]])), json_output)


@app.command()
def report(
    study: Annotated[Path, typer.Argument(help="A study file.", show_default=False)], json_output: Json = False
) -> None:
    """Print the report of a study."""
    from gguf_eval.analysis.summary import summarise
    from gguf_eval.study.read import read_study

    _print_summary(summarise(read_study(study)), json_output)


@app.command()
def tasks() -> None:
    """List the tasks and suites that ship."""
    from gguf_eval.report.listing import print_tasks
    from gguf_eval.tasks.catalog import find_tasks, suites, task_names

    print_tasks(find_tasks(task_names()), suites(), _stdout())


@app.command()
def doctor() -> None:
    """Show what gguf-eval finds on this machine: processor, memory, llama.cpp build and cache folder."""
    from gguf_eval.report.listing import print_doctor
    from gguf_eval.study.doctor import examine

    print_doctor(examine(), _stdout())


@app.command()
def quantize(
    source: Annotated[
        str, typer.Argument(help="A GGUF in F32, F16 or BF16, a checkpoint folder, or owner/name on the hub.")
    ],
    levels: Levels = "",
    recipe: Annotated[
        list[str] | None, typer.Option("--recipe", help="A recipe's name or TOML file; may be repeated.")
    ] = None,
    ladder: Annotated[str, typer.Option("--ladder", help="A list of recipes: quick, standard, full or paper.")] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files made.")] = Path(),
    imatrix: Annotated[Path | None, typer.Option("--imatrix", help="An importance matrix to quantize with.")] = None,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Take a source that is quantized already.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", "--dry-run", help="Say what would be made, with exact sizes, and make nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files of another origin.")] = False,
    threads: Threads = None,
    json_output: Json = False,
) -> None:
    """Make quantization levels of a model. Files that were made from the same things before are kept."""
    from gguf_eval.files.batch import Request, make_all, plan_all
    from gguf_eval.files.recipes import find_ladder, find_recipe
    from gguf_eval.report.model_files import StepLines, disk_free, disk_text, steps_json, steps_text

    chosen = [find_recipe(name) for name in (*_split(levels), *(recipe or []))]
    recipes = dict.fromkeys((*chosen, *(find_ladder(ladder) if ladder else ())))
    if not recipes:
        raise UsageError("levels are needed; name them with -q Q4_K_M,Q8_0, --recipe FILE or --ladder standard")
    file = _model_source(source, None)
    request = Request(
        source=file,
        folder=output,
        recipes=tuple(recipes),
        imatrix=imatrix,
        allow_requantize=allow_requantize,
        skip_without_imatrix=bool(ladder),
        force=force,
        threads=threads,
    )
    steps = _isolated(plan_all if plan else make_all, request, folder=output, on_progress=StepLines(sys.stderr, plan))
    if json_output:
        _print_json({"source": str(file), "steps": steps_json(steps), "disk_free_bytes": disk_free(output)})
        return
    print(steps_text(steps))
    if plan:
        print(disk_text(steps, disk_free(output)))


@app.command()
def imatrix(
    model: Annotated[Path, typer.Argument(help="A GGUF, of the highest precision there is.", show_default=False)],
    text: Annotated[
        str,
        typer.Option("--text", help="A text file, or owner/name:config/split:column on the hub (default: shipped)."),
    ] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File (default: MODEL.imatrix.gguf).")] = None,
    chunks: Annotated[int | None, typer.Option("--chunks", min=1, help="Chunks to use (default: all).")] = None,
    ctx: Annotated[int, typer.Option("--ctx", "-c", min=32, help="Tokens of a chunk.")] = 512,
    with_output: Annotated[bool, typer.Option("--process-output", help="Collect for the output matrix too.")] = False,
    threads: Threads = None,
    gpu_layers: Annotated[
        str, typer.Option("--gpu-layers", "-ngl", help="Layers on the GPU: all or a number.")
    ] = "all",
    json_output: Json = False,
) -> None:
    """Make an importance matrix: which weights matter on a text. An interrupted run goes on where it was."""
    from gguf_eval.files.imatrix import ImatrixRequest, make_imatrix
    from gguf_eval.files.model_file import model_name
    from gguf_eval.report.model_files import ChunkLine, imatrix_json, imatrix_text

    dataset, content = _calibration(text)
    target = output or Path(f"{model_name(model)}.imatrix.gguf")
    request = ImatrixRequest(
        model=model,
        text=content,
        dataset=dataset,
        output=target,
        chunks=chunks,
        chunk_tokens=ctx,
        with_output=with_output,
        threads=threads,
        gpu_layers=_gpu_layers(gpu_layers),
    )
    made = _isolated(make_imatrix, request, folder=target.parent, on_progress=ChunkLine(sys.stderr))
    if json_output:
        _print_json(imatrix_json(target, made))
    else:
        print(imatrix_text(target, made))


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(help="A GGUF, here or owner/name/file.gguf on the hub.", show_default=False)],
    ctx: Annotated[
        int | None, typer.Option("--ctx", "-c", min=1, help="Context for the memory predicted (default: the model's).")
    ] = None,
    cache_type: Annotated[str, typer.Option("--cache-type", "-ctk", help="Storage type of the KV cache.")] = "F16",
    json_output: Json = False,
) -> None:
    """Show what a model file says of itself, and the memory it will need. Only its header is read."""
    from gguf_eval.files.footprint import predict_footprint
    from gguf_eval.files.remote import inspect_headers
    from gguf_eval.report.model_files import inspection, inspection_text

    headers, size_bytes = inspect_headers(file)
    found = inspection(headers, size_bytes, predict_footprint(headers, ctx, cache_type=cache_type))
    if json_output:
        _print_json(found)
    else:
        print(inspection_text(found))


@app.command()
def recipes() -> None:
    """List the quantization recipes and ladders that ship."""
    from gguf_eval.files.recipes import ladders, shipped_recipes
    from gguf_eval.report.model_files import recipes_text

    print(recipes_text(shipped_recipes(), ladders()))


def _run(request: RunRequest, json_output: bool) -> None:
    from rich.console import Console

    from gguf_eval.analysis.summary import summarise
    from gguf_eval.report.progress import ConsoleObserver
    from gguf_eval.study.read import read_study
    from gguf_eval.study.run import run_study

    observer = ConsoleObserver(Console(stderr=True))
    try:
        complete = run_study(request, observer)
    except KeyboardInterrupt:
        print("gguf-eval: interrupted; everything so far is saved: run the same command to go on", file=sys.stderr)
        raise typer.Exit(130) from None
    _print_summary(summarise(read_study(request.study)), json_output)
    observer.note(f"study: {request.study}")
    if not complete:
        raise typer.Exit(1)


def _print_summary(summary: StudySummary, json_output: bool) -> None:
    if json_output:
        from gguf_eval.report.export import to_document

        sys.stdout.write(json.dumps(to_document(summary), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return
    from gguf_eval.report.terminal import print_report

    print_report(summary, _stdout())


def _stdout() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    return Console(width=width, highlight=False)


def _isolated(function: Callable[..., R], request: object, *, folder: Path, on_progress: Callable[[Any], None]) -> R:
    from gguf_eval.files.cache import cache_dir
    from gguf_eval.files.isolated import run_isolated

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
    from gguf_eval.files.hub import dataset_files
    from gguf_eval.tasks.datasets import read_rows
    from gguf_eval.tasks.spec import Dataset

    repo, _, rest = text.partition(":")
    inside, _, column = rest.partition(":")
    config, _, split = inside.rpartition("/")
    if not (repo and config and split and column):
        raise UsageError(f"--text: a file, or owner/name:config/split:column, is needed; found '{text}'")
    rows = read_rows(Dataset(repo, config, split), fetch=dataset_files, source=Path(text))
    if rows and column not in rows[0]:
        raise UsageError(f"--text: {repo} has no column '{column}'{nearest(column, rows[0])}")
    return text, "\n".join(str(row[column]).removesuffix("\n") for row in rows)


def _print_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _gpu_layers(text: str) -> int:
    if text.lower() == "all":
        return -1
    if text.isdigit():
        return int(text)
    raise UsageError(f"--gpu-layers needs 'all' or a number of layers; found '{text}'")


@app.command()
def convert(
    source: Annotated[
        str, typer.Argument(help="A checkpoint folder, or a hub repository: owner/name or owner/name@revision.")
    ],
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The model file to write, or a folder for it.")
    ] = None,
    outtype: Annotated[str, typer.Option(help="auto (the weights' own 16-bit type), f32, f16, bf16 or q8_0.")] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse NaN or infinite weights instead of warning.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written (a hub model's weights stay there).")
    ] = False,
    json_output: Json = False,
) -> None:
    """Make a model file (GGUF) from a Llama, Mistral or Mixtral checkpoint."""
    from gguf_eval.files.convert.plan import plan_conversion
    from gguf_eval.files.convert.write import output_path, write
    from gguf_eval.report import conversion as show

    plan = plan_conversion(source, outtype, headers_only=dry_run)
    if dry_run:
        _warn(plan.warnings)
        typer.echo(show.plan_json(plan) if json_output else show.format_plan(plan))
        return
    path = output_path(plan, output)
    with show.byte_progress(path.name) as progress:
        result = write(plan, path, strict=strict, progress=progress)
    _warn(result.warnings)
    typer.echo(show.conversion_json(result) if json_output else show.format_conversion(result))


def _model_source(reference: str, cache: Path | None) -> Path:
    from gguf_eval.files.cache import cache_dir
    from gguf_eval.files.source import model_source
    from gguf_eval.report.conversion import byte_progress

    path, warnings = model_source(reference, cache=cache_dir(cache), show=byte_progress)
    _warn(warnings)
    return path


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        typer.echo(f"gguf-eval: warning: {warning}", err=True)


def main() -> None:
    """Run the program; errors that are the user's to mend become one line and an exit code."""
    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        # Without its standalone mode typer returns the code of typer.Exit and raises everything else.
        sys.exit(app(standalone_mode=False) or 0)
    except typer.exceptions.TyperException as error:
        print(f"gguf-eval: {error.format_message()} ('gguf-eval --help' lists what there is)", file=sys.stderr)
        sys.exit(UsageError.exit_code)
    except GgufEvalError as error:
        print(f"gguf-eval: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
