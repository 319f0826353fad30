"""The commands that read a study: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gguf_eval.cli.options import Json, app, print_summary, split_names, stdout


@app.command()
def report(
    study: Annotated[Path, typer.Argument(help="A study file.", show_default=False)],
    wide: Annotated[bool, typer.Option("--wide", help="Every column, however long the lines get.")] = False,
    columns: Annotated[
        str, typer.Option("--columns", help="These columns, in this order: level,memory,tg128,score,against ...")
    ] = "",
    sort: Annotated[str | None, typer.Option("--sort", help="bpw, file, memory, speed or score.")] = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colour (NO_COLOR does the same).")] = False,
    json_output: Json = False,
) -> None:
    """Print the report of a study.

    In a narrow terminal columns go in this order: tasks (into a table of their own), pp, file, bpw, tg, score, memory.
    """
    from gguf_eval.analysis.summary import summarise
    from gguf_eval.report.terminal import print_report
    from gguf_eval.study.read import read_study

    summary = summarise(read_study(study))
    if json_output:
        print_summary(summary, json_output)
    else:
        print_report(summary, stdout(no_color=no_color), wide=wide, columns=split_names(columns), sort=sort)
