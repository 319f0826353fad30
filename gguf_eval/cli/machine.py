"""The commands about this machine: bench, doctor."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from gguf_eval.cli import options
from gguf_eval.cli.engine import EngineOptions
from gguf_eval.cli.printing import answer, command_line
from gguf_eval.cli.unfold import unfolded
from gguf_eval.errors import UsageError


@options.app.command()
@unfolded
def bench(
    models: Annotated[list[str], Argument(help=options.NAMED_MODELS_HELP)],
    *,
    prompt: Annotated[str, Option("--n-prompt", "-p", help="Tokens of prompts, for instance 512,2048.")] = "512",
    generated: Annotated[str, Option("--n-gen", "-n", help="Tokens to generate.")] = "128",
    depth: Annotated[str, Option("--n-depth", "-d", help="Tokens in the cache before each test.")] = "0",
    repetitions: Annotated[int, Option("--repetitions", "-r", min=1, help="Timed runs of each test.")] = 5,
    ctx: Annotated[int | None, Option("--ctx", "-c", min=16, help="Context in tokens (default: 4096).")] = None,
    batch_size: Annotated[int, Option("--batch-size", "-b", min=1, help="Tokens of one decode.")] = 2048,
    ubatch_size: Annotated[int, Option("--ubatch-size", "-ub", min=1, help="Tokens computed at once.")] = 512,
    threads: Annotated[int | None, Option("--threads", "-t", min=1, help="Threads.")] = None,
    engine: EngineOptions,
    min_ctx: options.MinCtx = None,
    study: Annotated[Path | None, Option(help="A study file to keep the repetitions in.")] = None,
    json_output: options.Json = False,
) -> None:
    """Measure speed and memory, as llama-bench does, each point in a process of its own."""
    from gguf_eval.analysis.costs import point_cost
    from gguf_eval.report.machine import costs_document, print_costs
    from gguf_eval.report.progress import console_observer
    from gguf_eval.study.bench import bench as run_bench
    from gguf_eval.study.points import RunRequest

    files, names = options.named_model_paths(models, None)
    request = RunRequest(
        models=files,
        names=names,
        study=study or Path(),
        tasks=(),
        repetitions=repetitions,
        prompt_tokens=_counts("--n-prompt", prompt),
        generated_tokens=_counts("--n-gen", generated),
        depths=_counts("--n-depth", depth) or (0,),
        ctx=ctx,
        speed_batch_size=batch_size,
        speed_ubatch_size=ubatch_size,
        threads=threads,
        offload=engine.offload,
        cache_types=engine.cache_types,
        flash_attention=engine.flash_attention,
        max_memory_bytes=engine.max_memory_bytes,
        min_ctx=min_ctx,
        command=command_line(),
        measure_again=True,
    )
    try:
        with console_observer() as observer:
            found, complete = run_bench(request, observer)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    costs = [point_cost(point) for point in found.points if point.speed]
    answer(json_output, costs_document(costs, found.environment), partial(print_costs, costs))
    if not complete:
        raise typer.Exit(1)


def _counts(option: str, text: str) -> tuple[int, ...]:
    names = options.split_names(text)
    if not all(name.isdigit() for name in names):
        raise UsageError(f"{option} needs numbers of tokens separated by commas; found '{text}'")
    return tuple(int(name) for name in names)


@options.app.command()
def doctor(rpc: options.Rpc = "", json_output: options.Json = False) -> None:
    """Show what gguf-eval finds on this machine, what would go wrong, and the command that mends it."""
    from dataclasses import asdict

    from gguf_eval.report.machine import print_doctor
    from gguf_eval.runtime.settings import Offload
    from gguf_eval.study.doctor import examine

    found = examine(Offload(rpc=tuple(options.split_names(rpc))))
    answer(json_output, {**asdict(found), "cache": str(found.cache)}, partial(print_doctor, found))
