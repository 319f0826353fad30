"""The command line: reads options, calls one function, prints what it returns."""

from __future__ import annotations

import sys

import typer

from gguf_eval.errors import GgufEvalError

app = typer.Typer(
    name="gguf-eval",
    help="Which size, at which quantization level, should I run on this machine, and what do I lose?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Which size, at which quantization level, should I run on this machine, and what do I lose?"""


def main() -> None:
    """Run the program; errors that are the user's to mend become one line and an exit code."""
    try:
        app()
    except GgufEvalError as error:
        print(f"gguf-eval: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
