"""The command line: reads options, calls one function, prints what it returns."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import typer.exceptions

from gguf_eval.errors import GgufEvalError, UsageError

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

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the report.")]
Levels = Annotated[
    str, typer.Option("--levels", "-q", help="Levels to make and compare, for instance Q2_K,Q4_K_M,F16.")
]
Tasks = Annotated[str, typer.Option("--tasks", "-t", help="Tasks, suites or task files, separated by commas.")]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Items of each task: a random subset.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads [default: physical cores].")]
Study = Annotated[Path | None, typer.Option("--study", help="The study file [default: MODEL.study.sqlite].")]


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
    models: Annotated[list[Path], typer.Argument(help="GGUF files.", show_default=False)],
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

    request = RunRequest(
        models=tuple(models),
        study=study or Path(f"{model_name(models[0])}.study.sqlite"),
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
