"""How commands print answers and warnings."""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console

    from gguf_eval.analysis.summary import StudySummary


def command_line() -> str:
    """The command that is run, as a shell takes it."""
    return shlex.join(["gguf-eval", *sys.argv[1:]])


def say(text: str, *, err: bool = False) -> None:
    """Print lines as they are: names and texts in them may come from files, and must not steer the terminal."""
    print(_shown(text), file=sys.stderr if err else sys.stdout)


def _shown(text: str) -> str:
    from gguf_eval.report.escape import plain

    return "".join(part if part in ("\n", "\t") else plain(part) for part in re.split(r"([\n\t])", text))


class _Shown(io.TextIOBase):
    """Writes to a terminal what `say` would print."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal

    def write(self, text: str) -> int:
        return self._terminal.write(_shown(text))


def data_stream() -> TextIO:
    """Standard output for data: as it is where a program or a file takes it, harmless where a terminal does."""
    return cast("TextIO", _Shown(sys.stdout)) if sys.stdout.isatty() else sys.stdout


def warn(warnings: tuple[str, ...]) -> None:
    """Print warnings to standard error."""
    for warning in warnings:
        say(f"gguf-eval: warning: {warning}", err=True)


def piped() -> bool:
    """Whether answers go where lines may be as long as they need to be."""
    return not sys.stdout.isatty() and "COLUMNS" not in os.environ


def stdout(*, no_color: bool = False) -> Console:
    """The console for answers: plain and wide when piped."""
    from rich.console import Console

    width = 160 if piped() else None
    return Console(width=width, highlight=False, no_color=no_color or None)


def print_json(document: object) -> None:
    """Print one JSON document; characters that a terminal would obey are escaped."""
    from gguf_eval.report.escape import json_text

    sys.stdout.write(json_text(document) + "\n")


def answer(
    json_output: bool, document: object, show: str | Callable[[Console], None], *, no_color: bool = False
) -> None:
    """Print a JSON document where that is asked for, and otherwise lines, or what ``show`` prints."""
    if json_output:
        print_json(document)
    elif isinstance(show, str):
        say(show)
    else:
        show(stdout(no_color=no_color))


def print_summary(summary: StudySummary, json_output: bool) -> None:
    """Print the report of a study, or its JSON document."""
    if json_output:
        from gguf_eval.report.export import to_document

        print_json(to_document(summary))
        return
    from gguf_eval.report.terminal import print_report

    print_report(summary, stdout(), complete=piped())
