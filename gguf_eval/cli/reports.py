"""The commands that read studies: report, changes."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from gguf_eval.cli import options
from gguf_eval.cli.printing import answer, command_line, piped, print_summary, say, stdout
from gguf_eval.errors import UsageError, nearest

if TYPE_CHECKING:
    from gguf_eval.analysis.summary import StudySummary
    from gguf_eval.store.records import StudyRecord

FORMATS = ("text", "html", "svg", "png", "markdown", "json", "csv", "jsonl", "parquet")


@options.app.command()
def report(
    studies: Annotated[list[Path], Argument(help="Study files.")],
    format_: Annotated[str, Option("--format", "-f", help=", ".join(FORMATS) + ".")] = "",
    output: Annotated[Path | None, Option("--output", "-o", help="Write to this file.")] = None,
    items: Annotated[bool, Option("--items", help="One row an item in csv, jsonl and parquet.")] = False,
    chart: Annotated[
        str, Option(help="The chart of svg and png: quality, speed, divergence, ladder-MODEL, heat-MODEL.")
    ] = "quality",
    wide: Annotated[bool, Option("--wide", help="Every column, however long the lines get.")] = False,
    columns: Annotated[str, Option(help="These columns, in this order: level,memory,tg128,score,against ...")] = "",
    sort: Annotated[str | None, Option(help="bpw, file, memory, speed or score.")] = None,
    no_color: options.NoColor = False,
    json_output: options.Json = False,
) -> None:
    """Print the report of a study, or write it as a web page, a chart, a model card's text or data.

    Several studies stand in one report: points of a model that more than one of them has are named with their study.

    In a narrow terminal tasks go into a table of their own, then other columns go, which are named below the tables.

    Where the output is no terminal, tasks alone go.
    """
    from gguf_eval.analysis.summary import summarise
    from gguf_eval.report.terminal import print_report
    from gguf_eval.store.read import read_study
    from gguf_eval.store.together import merge_studies

    name = _format(format_, output, json_output)
    record = merge_studies([read_study(study) for study in studies])
    summary = summarise(record)
    if name == "text" and output is None:
        console = stdout(no_color=no_color)
        print_report(summary, console, wide=wide, columns=options.split_names(columns), sort=sort, complete=piped())
    elif name == "json" and output is None:
        print_summary(summary, True)
    elif name in ("svg", "png", "parquet", "html") and output is None:
        raise UsageError(f"--format {name} needs a file to write to: -o report.{name}")
    elif output is None:
        typer.echo(_text(name, record, summary, items), nl=False)
    else:
        _write(name, output, record, summary, items, chart)
        say(f"gguf-eval: wrote {output}", err=True)


def _format(name: str, output: Path | None, json_output: bool) -> str:
    """The format asked for; the file's ending says it where the option does not."""
    endings = {"md": "markdown", "htm": "html", "txt": "text", "ndjson": "jsonl"}
    if json_output:
        return "json"
    if not name:
        ending = output.suffix.lstrip(".").lower() if output else "text"
        name = endings.get(ending, ending)
    if name not in FORMATS:
        raise UsageError(f"--format: '{name}' is unknown{nearest(name, FORMATS)}; there are: {', '.join(FORMATS)}")
    return name


def _write(name: str, output: Path, record: StudyRecord, summary: StudySummary, items: bool, chart: str) -> None:
    """Write a report, which is whole or not there."""
    from gguf_eval.atomic import written_whole

    if not output.parent.is_dir():
        raise UsageError(f"{output.parent}: no such folder; make it, or name another file with -o")
    with written_whole(output) as part:
        if name in ("svg", "png"):
            from gguf_eval.report.charts import write_image

            write_image(summary, part, name, chart)  # type: ignore[arg-type]
        elif name == "parquet":
            from gguf_eval.report.data import item_rows, summary_rows, write_parquet

            write_parquet(list(item_rows(record) if items else summary_rows(summary)), part)
        else:
            part.write_text(_text(name, record, summary, items), encoding="utf-8", newline="")


def _text(name: str, record: StudyRecord, summary: StudySummary, items: bool) -> str:
    from gguf_eval.report.data import item_rows, summary_rows, write_csv, write_jsonl

    out = io.StringIO()
    rows = item_rows(record) if items else summary_rows(summary)
    if name == "html":
        from gguf_eval.report.html import to_html

        out.write(to_html(record, summary))
    elif name == "markdown":
        from gguf_eval.report.markdown import to_markdown

        out.write(to_markdown(summary))
    elif name == "json":
        from gguf_eval.report.escape import json_text
        from gguf_eval.report.export import to_document

        out.write(json_text(to_document(summary)) + "\n")
    elif name == "csv":
        write_csv(list(rows), out)
    elif name == "jsonl":
        write_jsonl(rows, out)
    else:
        from rich.console import Console

        from gguf_eval.report.terminal import print_report

        print_report(summary, Console(file=out, width=120, highlight=False), complete=True)
    return out.getvalue()


@options.app.command()
def changes(
    old: Annotated[Path, Argument(help="The earlier study.")],
    new: Annotated[Path, Argument(help="The later one.")],
    fail_if_worse: Annotated[
        bool, Option("--fail-if-worse", help="Exit with 1 where anything is worse beyond noise.")
    ] = False,
    margin: options.Margin = 1.0,
    speed_tolerance: Annotated[
        float, Option(min=0.0, help="Per cent that speed may change and count as the same.")
    ] = 5.0,
    memory_tolerance: Annotated[float, Option(min=0.0, help="The same for peak memory.")] = 5.0,
    no_color: options.NoColor = False,
    json_output: options.Json = False,
) -> None:
    """Say what changed beyond noise between two dates: another llama.cpp build, another machine, a file made anew.

    Points are the same where model and level are, items where they ask the same.

    What is in one of the studies only is named and not compared.
    """
    from gguf_eval.analysis.changes import find_changes
    from gguf_eval.analysis.ratios import Tolerances
    from gguf_eval.report.changes import changes_document, print_changes
    from gguf_eval.store.read import read_study

    tolerances = Tolerances(speed_tolerance / 100, memory_tolerance / 100)
    found = find_changes(read_study(old), read_study(new), margin=margin / 100, tolerances=tolerances)
    document = changes_document(found, command_line())
    answer(json_output, document, partial(print_changes, found), no_color=no_color)
    if fail_if_worse and found.worse:
        raise typer.Exit(1)
