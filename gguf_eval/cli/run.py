"""The commands that run a study: run, demo."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from gguf_eval.cli import options
from gguf_eval.cli.engine import ChatOptions, EngineOptions
from gguf_eval.cli.printing import answer, command_line, print_summary, say
from gguf_eval.cli.unfold import unfolded

if TYPE_CHECKING:
    from gguf_eval.study.plan import Plan
    from gguf_eval.study.points import RunRequest


@options.app.command()
@unfolded
def run(
    models: Annotated[list[str], Argument(help=options.NAMED_MODELS_HELP)],
    *,
    levels: options.Levels = "",
    tasks: options.Tasks = "offline",
    limit: options.Limit = None,
    study: options.Study = None,
    ctx: Annotated[
        int | None,
        options.machine(
            "--ctx", "-c", min=16, help="Context in tokens: items are cut to it, speed and memory measured with it."
        ),
    ] = None,
    threads: options.Threads = None,
    engine: EngineOptions,
    min_ctx: options.MinCtx = None,
    batch_size: Annotated[int, options.machine("--batch-size", "-b", min=32, help="Tokens of one decode.")] = 512,
    items: Annotated[str, Option(help="Only these items, by id, separated by commas.")] = "",
    fewshot: options.Fewshot = None,
    chat: ChatOptions,
    text: Annotated[
        str, options.over_text(help="A text file, wikitext2 or none: perplexity, and divergence from the reference.")
    ] = "",
    text_ctx: Annotated[int, options.over_text(min=8, help="Tokens of a window of the text.")] = 512,
    chunks: Annotated[int | None, options.over_text(min=1, help="Windows of the text at most.")] = None,
    seed: Annotated[int, Option(help="Chooses the items of --limit.")] = 0,
    speed: Annotated[bool, Option("--speed/--no-speed", help="Measure speed and memory.")] = True,
    repetitions: Annotated[int, Option("--repetitions", "-r", min=1, help="Timed runs of each speed test.")] = 3,
    allow_requantize: Annotated[
        bool, Option("--allow-requantize", help="Make levels from a file that is quantized already.")
    ] = False,
    cache_dir: Annotated[Path | None, Option(help="Where made files are kept.")] = None,
    mirror: options.Mirror = None,
    plan: Annotated[
        bool, Option("--plan", "--dry-run", help="Say what would be done, with disk and time needed, and do nothing.")
    ] = False,
    yes: options.Yes = False,
    json_output: options.Json = False,
) -> None:
    """Evaluate models at quantization levels, and report. Run it again to resume."""
    from gguf_eval.study.points import RunRequest

    request = RunRequest(
        models=tuple(models),
        study=study or Path(),
        levels=tuple(options.split_names(levels)),
        tasks=tuple(options.split_names(tasks)),
        limit=limit,
        items=tuple(options.split_names(items)),
        fewshot=fewshot,
        seed=seed,
        allow_requantize=allow_requantize,
        speed=speed,
        repetitions=repetitions,
        ctx=ctx,
        batch_size=batch_size,
        threads=threads,
        offload=engine.offload,
        cache_types=engine.cache_types,
        flash_attention=engine.flash_attention,
        max_memory_bytes=engine.max_memory_bytes,
        min_ctx=min_ctx,
        chat=chat.settings,
        text=text,
        text_ctx=text_ctx,
        chunks=chunks,
        cache=cache_dir,
        mirror=mirror,
        command=command_line(),
    )
    _plan_and_run(request, plan=plan, yes=yes, json_output=json_output)


@options.app.command()
def demo(
    study: Annotated[Path, Option(help="The study file.")] = Path("demo.study.sqlite"),
    threads: options.Threads = None,
    yes: options.Yes = False,
    json_output: options.Json = False,
) -> None:
    """Compare four levels of a small model that comes with the 'demo' extra: no network, a few minutes."""
    from gguf_eval.study.demo import demo_request

    request = demo_request(study, threads, command_line())
    _plan_and_run(request, plan=False, yes=yes, json_output=json_output)


def _plan_and_run(request: RunRequest, *, plan: bool, yes: bool, json_output: bool) -> None:
    """Say what the run will do; unless that was all that is wanted, ask where it is heavy, and do it."""
    from gguf_eval.report.forecast import forecast_document, forecast_line, forecast_text
    from gguf_eval.study.forecast import check_disk
    from gguf_eval.study.plan import make_plan

    may_ask = not (yes or plan) and sys.stdin.isatty() and sys.stdout.isatty()
    planned = make_plan(request, thorough=plan, calibrate=plan or may_ask)
    found = planned.forecast
    if plan:
        answer(json_output, forecast_document(found), forecast_text(found))
        return
    check_disk(found)
    if line := forecast_line(found):
        say(line, err=True)
    if may_ask and found.heavy and not typer.confirm("Go on?", default=True, err=True):
        say("gguf-eval: nothing was done; 'run --plan' says more", err=True)
        raise typer.Exit(1)
    if planned.pending:
        files, names = options.named_model_paths([str(model) for model in request.models], request.cache)
        request = replace(request, models=files, names=names, study=found.study)
        planned = make_plan(request, fetch=True, known=found.rates)
    _run(planned, json_output)


def _run(plan: Plan, json_output: bool) -> None:
    from gguf_eval.analysis.summary import summarise
    from gguf_eval.report.progress import console_observer
    from gguf_eval.store.read import read_study
    from gguf_eval.study.run import run_study

    study = plan.asked.request.study
    try:
        with console_observer() as observer:
            complete = run_study(plan, observer)
    except KeyboardInterrupt:
        say("gguf-eval: interrupted; everything so far is saved: run the same command to go on", err=True)
        raise typer.Exit(130) from None
    print_summary(summarise(read_study(study)), json_output)
    say(f"study: {study}", err=True)
    if not complete:
        raise typer.Exit(1)
