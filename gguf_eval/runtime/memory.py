"""Peak memory of this process, as the operating system counts it."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_rss_bytes() -> tuple[int, str]:
    """Largest resident set so far, in bytes, and where the figure is from.

    Linux's ``ru_maxrss`` is not used where avoidable: it survives exec, so that a child starts with its parent's peak.
    """
    if sys.platform == "linux":
        try:
            for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024, "VmHWM"
        except OSError:
            pass  # no /proc: the next best figure follows
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset), "peak_wset"
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak, "ru_maxrss") if sys.platform == "darwin" else (peak * 1024, "ru_maxrss")
