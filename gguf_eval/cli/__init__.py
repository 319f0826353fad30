"""The command line: each command reads options, calls one function and prints what it returns."""

from __future__ import annotations

import io
import signal
import sys
from importlib import import_module
from importlib.metadata import version as installed_version
from typing import Annotated

import typer
import typer.exceptions

from gguf_eval.cli.options import app
from gguf_eval.errors import GgufEvalError, UsageError

for _module in ("run", "reports", "quality", "model_files", "tasks", "machine", "lm_eval"):  # in the order of --help
    import_module(f"gguf_eval.cli.{_module}")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        print(f"gguf-eval {installed_version('gguf-eval')}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


def _complain(message: str) -> None:
    """Print an error; names in it may come from files, and must not steer the terminal."""
    from gguf_eval.report.escape import plain

    print("gguf-eval: " + "\n".join(map(plain, message.split("\n"))), file=sys.stderr)


def _write_any_character() -> None:
    """Pipes and files get UTF-8: on Windows they have a code page that lacks most of our characters."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            if stream.isatty():
                stream.reconfigure(errors="backslashreplace")
            else:
                stream.reconfigure(encoding="utf-8")


def main() -> None:
    """Run the program; errors that are the user's to mend become one line and an exit code."""
    _write_any_character()
    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Without its standalone mode typer returns the code of typer.Exit and raises everything else.
        sys.exit(app(standalone_mode=False) or 0)
    except typer.exceptions.TyperException as error:
        _complain(f"{error.format_message()} ('gguf-eval --help' lists what there is)")
        sys.exit(UsageError.exit_code)
    except GgufEvalError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
