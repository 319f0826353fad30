"""Runs the program in a pseudo-terminal of 80 x 24, as a user at a keyboard would."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time


def run_in_terminal(arguments: tuple[str, ...], *, interrupt: bytes = b"", answer: bytes = b"") -> tuple[int, str]:
    """Return exit code and everything shown; Ctrl-C when ``interrupt`` is seen, ``answer`` typed when it is asked."""
    import fcntl
    import pty
    import termios

    terminal, inside = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "gguf_eval", *arguments], stdin=inside, stdout=inside, stderr=inside,
        env={**environment, "TERM": "xterm-256color"}, start_new_session=True,
    )  # fmt: skip
    os.close(inside)
    seen = b""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        seen += part
        if interrupt and interrupt in seen:
            process.send_signal(signal.SIGINT)
            interrupt = b""
        if answer and b"[Y/n]" in seen:
            os.write(terminal, answer)
            answer = b""
    os.close(terminal)
    return process.wait(timeout=60), seen.decode("utf-8", errors="replace")
