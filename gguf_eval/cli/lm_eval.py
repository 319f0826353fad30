"""The command that runs lm-evaluation-harness: lm-eval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from gguf_eval.cli import options
from gguf_eval.cli.printing import command_line, say


@options.app.command("lm-eval", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lm_eval(
    context: typer.Context,
    model: Annotated[str, Option(help="A GGUF file, or what else 'run' takes.", show_default=False)],
    model_args: Annotated[
        str, Option("--model_args", help="How it is run: n_ctx=4096,threads=8,gpu_layers=all,batch_size=512,...")
    ] = "",
    use_cache: Annotated[
        Path | None, Option("--use_cache", help="Keep answers there, apart for each model file, and go on.")
    ] = None,
    output_path: Annotated[
        Path | None, Option("--output_path", help="Where the harness's own result files go.")
    ] = None,
    study: options.Study = None,
) -> None:
    """Run lm-evaluation-harness's tasks (--tasks ...) on a model; all further options are the harness's own.

    Answers are stored in a study file, where 'report' shows them beside speed and memory.
    """
    from gguf_eval.files.model_file import model_name
    from gguf_eval.lm_eval.evaluate import HarnessRequest, evaluate

    path = options.model_source_path(model, None)
    request = HarnessRequest(
        model=path,
        study=study or Path(f"{model_name(path)}.study.sqlite"),
        model_args=model_args,
        options=tuple(context.args),
        use_cache=use_cache,
        output=output_path,
        command=command_line(),
    )
    try:
        evaluate(request)
    except KeyboardInterrupt:
        kept = "run the same command to go on" if use_cache else "with --use_cache a run can go on where it was"
        say(f"gguf-eval: interrupted; {kept}", err=True)
        raise typer.Exit(130) from None
    say(f"study: {request.study}", err=True)
