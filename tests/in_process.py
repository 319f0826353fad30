"""The command line in the test's own process: what another says, without the second that it takes to start."""

from __future__ import annotations

import io
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from gguf_eval.cli import main


def gguf_eval_here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``gguf-eval`` with these arguments; its exit code, standard output and standard error."""
    argv = ["gguf-eval", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with mock.patch("sys.argv", argv), mock.patch("signal.signal"), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())
