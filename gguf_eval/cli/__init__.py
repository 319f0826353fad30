"""The command line: each command reads options, calls one function and prints what it returns."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version as installed_version
from types import FrameType
from typing import Annotated

import typer
import typer.exceptions

from gguf_eval.cli.options import app
from gguf_eval.errors import GgufEvalError, UsageError

INTERRUPTED = 130
TRACEBACK = "GGUF_EVAL_TRACEBACK"
"""Set in the environment, it shows where an error came from that nobody foresaw."""

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


def _on_interrupts(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Have Ctrl-C and the system's polite request to end call ``handler``; a shell's background jobs ignore Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first Ctrl-C ends everything in order, which takes a moment: the second must not break that off.

    The third does: child processes end with this one, and what they had begun to write is left.
    """
    _on_interrupts(_wait_a_moment)
    atexit.register(_on_interrupts, signal.SIG_IGN)  # the interpreter's end would give the system's handler back
    raise KeyboardInterrupt


def _wait_a_moment(number: int, frame: FrameType | None) -> None:
    _on_interrupts(_leave_at_once)


def _leave_at_once(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def main() -> None:
    """Run the program; errors that are the user's to mend become one line and an exit code."""
    _write_any_character()
    _on_interrupts(_interrupt)
    try:
        # Without its standalone mode typer returns the code of typer.Exit and raises everything else.
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()  # what can't be written is an error now, not a line of the interpreter's at its end
        sys.exit(code)
    except typer.exceptions.TyperException as error:
        _complain(f"{error.format_message()} ('gguf-eval --help' lists what there is)")
        sys.exit(UsageError.exit_code)
    except GgufEvalError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # whoever read has read enough
        _give_up_stdout()
        sys.exit(1)
    except (OSError, MemoryError, RecursionError, UnicodeError) as error:
        if os.environ.get(TRACEBACK):
            raise
        _complain(f"{_said(error)} ({type(error).__name__}; with {TRACEBACK}=1 set, the place is shown)")
        _give_up_stdout()
        sys.exit(1)


def _said(error: Exception) -> str:
    """What an error of the system says in a line, the file before it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error).strip().split("\n")[0] or "out of memory"


def _give_up_stdout() -> None:
    """Let the interpreter's end write what is left of standard output to nowhere."""
    with contextlib.suppress(OSError):  # of a stream that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
