"""The machine this process runs on: its name for people, and how many threads to use."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any


def physical_cores() -> int:
    """Physical cores this process may use, as llama.cpp's tools default to: hyper-threads slow matrix products."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else (os.cpu_count() or 1)
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


def processor_name() -> str:
    """The processor's name where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def describe_machine() -> dict[str, Any]:
    """What a reader must know to judge a speed or a memory figure."""
    import psutil

    return {
        "processor": processor_name(),
        "physical_cores": physical_cores(),
        "logical_cores": os.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }
