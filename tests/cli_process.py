"""The program in a process of its own, as a user starts it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

COMMAND = [sys.executable, "-m", "gguf_eval"]


def gguf_eval(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, encoding="utf-8", **options)


FAST = ("-t", "count.toml", "--no-speed", "--threads", "1")
