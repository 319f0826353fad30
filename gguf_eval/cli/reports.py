"""The commands that read studies: report, changes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer
from typer import Argument, Option

from gguf_eval.cli import options
from gguf_eval.cli.printing import answer, command_line, data_stream, piped, print_summary, say, stdout
from gguf_eval.errors import GgufEvalError, UsageError, nearest

if TYPE_CHECKING:
    from gguf_eval.analysis.summary import StudySummary
    from gguf_eval.store.records import StudyRecord

FORMATS = ("text", "html", "svg", "png", "markdown", "json", "csv", "jsonl", "parquet")
_ROWS = ("csv", "jsonl", "parquet")
_FILES = ("svg", "png", "parquet", "html")
"""What is no text for a terminal."""


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
    if name in _FILES and output is None:
        raise UsageError(f"--format {name} needs a file to write to: -o report.{name}")
    record = merge_studies([read_study(study) for study in studies])
    if items and name in _ROWS:
        _give_items(name, output, record)
        return
    summary = summarise(record)
    if name == "text" and output is None:
        console = stdout(no_color=no_color)
        print_report(summary, console, wide=wide, columns=options.split_names(columns), sort=sort, complete=piped())
    elif name == "json" and output is None:
        print_summary(summary, True)
    elif output is None:
        _write_text(name, record, summary, data_stream())
    else:
        with _written(output) as part:
            _write(name, part, record, summary, chart)


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


@contextlib.contextmanager
def _written(output: Path) -> Iterator[Path]:
    """Give a name to write a report to, which is whole under ``output`` in the end, or not there."""
    from gguf_eval.atomic import written_whole

    if not output.parent.is_dir():
        raise UsageError(f"{output.parent}: no such folder; make it, or name another file with -o")
    try:
        with written_whole(output) as part:
            yield part
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise GgufEvalError(f"{output}: can't be written ({reason}); make room, or name another file with -o") from None
    say(f"gguf-eval: wrote {output}", err=True)


def _give_items(name: str, output: Path | None, record: StudyRecord) -> None:
    """Write or print one row an item, as the rows come: those of a large study fill the memory."""
    from gguf_eval.report.data import write_items_parquet

    if output is None:
        _write_items(name, record, data_stream())
        return
    with _written(output) as part:
        if name == "parquet":
            write_items_parquet(record, part)
        else:
            with part.open("w", encoding="utf-8", newline="") as out:
                _write_items(name, record, out)


def _write_items(name: str, record: StudyRecord, out: TextIO) -> None:
    from gguf_eval.report.data import item_columns, item_rows, write_csv, write_jsonl

    if name == "csv":
        write_csv(item_columns(record), item_rows(record), out)
    else:
        write_jsonl(item_rows(record), out)


def _write(name: str, part: Path, record: StudyRecord, summary: StudySummary, chart: str) -> None:
    """Write a report of any format."""
    if name in ("svg", "png"):
        from gguf_eval.report.charts import write_image

        write_image(summary, part, name, chart)  # type: ignore[arg-type]
    elif name == "parquet":
        from gguf_eval.report.data import summary_rows, write_parquet

        write_parquet(list(summary_rows(summary)), part)
    else:
        with part.open("w", encoding="utf-8", newline="") as out:
            _write_text(name, record, summary, out)


def _write_text(name: str, record: StudyRecord, summary: StudySummary, out: TextIO) -> None:
    from gguf_eval.report.data import columns_of, summary_rows, write_csv, write_jsonl

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
        rows = list(summary_rows(summary))
        write_csv(columns_of(rows), rows, out)
    elif name == "jsonl":
        write_jsonl(summary_rows(summary), out)
    else:
        from rich.console import Console

        from gguf_eval.report.terminal import print_report

        print_report(summary, Console(file=out, width=120, highlight=False), complete=True)


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
