"""Energy that the machine's own counters have seen; where there is none, nothing is said.

Three sources: RAPL's counters of processor packages (Linux, readable by root or by leave of the administrator), NVML's
of NVIDIA devices, and macOS's powermetrics (only where sudo asks for no password). All count the whole machine's work.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_RAPL = Path("/sys/class/powercap")
_POWER = re.compile(rb"Combined Power.*?: (\d+) mW")


class EnergyMeter:
    """Reads what counters there are; `close` when done."""

    def __init__(self, rapl_folder: Path = _RAPL) -> None:
        """``rapl_folder``: where Linux shows the counters."""
        self._counters: dict[str, Callable[[], float]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._counters.update(_rapl_counters(rapl_folder))
        self._counters.update(_nvml_counters())
        if sys.platform == "darwin":
            self._start_powermetrics()

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the counters that can be read."""
        return tuple(self._counters)

    def read(self) -> dict[str, float]:
        """Joules counted so far, by source; only differences mean something."""
        found = {}
        for name, counter in self._counters.items():
            with contextlib.suppress(OSError, ValueError):
                found[name] = counter()
        return found

    def close(self) -> None:
        """End what was started."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start_powermetrics(self) -> None:
        command = ["sudo", "-n", "powermetrics", "--samplers", "cpu_power,gpu_power", "-i", "200"]
        try:
            if subprocess.run(["sudo", "-n", "-l", "powermetrics"], capture_output=True, check=False).returncode:
                return
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except OSError:
            return
        self._joules, self._last = 0.0, time.perf_counter()
        threading.Thread(target=self._integrate, daemon=True).start()
        self._counters["powermetrics"] = lambda: self._joules

    def _integrate(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            match = _POWER.search(line)
            if match:
                now = time.perf_counter()
                self._joules += int(match[1]) / 1000 * (now - self._last)
                self._last = now


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Joules between two readings, by source; a counter that went backwards is left out."""
    return {name: after[name] - value for name, value in before.items() if name in after and after[name] - value > 0}


class _Rapl:
    """A counter in microjoules that begins again at zero when it is full."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last = int(self._path.read_text())
        self._turns = 0

    def __call__(self) -> float:
        now = int(self._path.read_text())
        if now < self._last:
            self._turns += 1
        self._last = now
        return (now + self._turns * self._range) / 1e6


def _rapl_counters(folder: Path) -> dict[str, Callable[[], float]]:
    counters: dict[str, Callable[[], float]] = {}
    if folder.is_dir():
        # Packages are intel-rapl:0 and so on, on AMD too; what follows a second colon is a part of one.
        for package in sorted(folder.glob("intel-rapl:*")):
            if package.name.count(":") == 1:
                with contextlib.suppress(OSError, ValueError):
                    counters[f"RAPL {(package / 'name').read_text().strip()}"] = _Rapl(package)
    return counters


def _nvml_counters() -> dict[str, Callable[[], float]]:
    try:
        import pynvml
    except ImportError:
        return {}
    counters: dict[str, Callable[[], float]] = {}
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)

            def joules(handle: object = handle) -> float:
                try:
                    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
                except pynvml.NVMLError as error:
                    raise OSError(str(error)) from None

            with contextlib.suppress(OSError):
                joules()  # older devices have no counter
                counters[f"NVML {index}"] = joules
    return counters
