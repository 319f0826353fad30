"""The commands that read a study: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gguf_eval.cli.options import Json, app, print_summary


@app.command()
def report(
    study: Annotated[Path, typer.Argument(help="A study file.", show_default=False)], json_output: Json = False
) -> None:
    """Print the report of a study."""
    from gguf_eval.analysis.summary import summarise
    from gguf_eval.study.read import read_study

    print_summary(summarise(read_study(study)), json_output)
