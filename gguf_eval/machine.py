"""The machine this process runs on: its name for people, and how many threads to use."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any


def physical_cores() -> int:
    """Physical cores this process may use, as llama.cpp's tools default to: hyper-threads slow matrix products.

    No more than a container is allowed: threads that wait for others that get no time are slower than fewer threads.
    """
    import psutil

    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else (os.cpu_count() or 1)
    quota = _cpu_quota(Path("/sys/fs/cgroup"))
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed, math.ceil(quota or allowed)))


def _cpu_quota(folder: Path) -> float | None:
    """Processors that a container may keep busy, where Linux's control groups limit it."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (folder / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii")
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # not Linux, or no limit ("max")
        return None


def processor_name() -> str:
    """The processor's name where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def memory_limit_bytes() -> int:
    """Memory that a process here can have: the machine's, or what a container is allowed."""
    import psutil

    total = int(psutil.virtual_memory().total)
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            return min(total, int(text))
    return total


def machine_state() -> dict[str, Any]:
    """What changes from minute to minute and moves speeds: clock, power source, processor time of all so far."""
    import psutil

    state: dict[str, Any] = {}
    with contextlib.suppress(OSError, NotImplementedError, RuntimeError):
        frequency = psutil.cpu_freq()
        if frequency and frequency.current:
            state["cpu_mhz"] = round(frequency.current)
    with contextlib.suppress(OSError, AttributeError, NotImplementedError, RuntimeError):
        battery = psutil.sensors_battery()
        if battery is not None:
            state["power"] = "mains" if battery.power_plugged else f"battery at {battery.percent:.0f} %"
    with contextlib.suppress(OSError):
        governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text(encoding="ascii")
        state["governor"] = governor.strip()
    times = psutil.cpu_times()
    state["busy_seconds"] = round(sum(times) - times.idle - getattr(times, "iowait", 0.0), 2)
    own = psutil.Process().cpu_times()
    state["own_seconds"] = round(own.user + own.system, 2)
    state["at_seconds"] = round(time.monotonic(), 2)
    return state


def processor_flags() -> frozenset[str]:
    """Instruction sets of the processor by Linux's names; empty on other systems."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass  # not Linux
    return frozenset()


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
