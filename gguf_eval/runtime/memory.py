"""Memory of this process, as the operating system counts it, and of the devices it computes on."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from gguf_eval.llama.devices import Device, device_memory

_INTERVAL_SECONDS = 0.25


@dataclass(frozen=True)
class Resident:
    """What of a process is in memory at one moment, in bytes."""

    total_bytes: int
    file_bytes: int | None
    """Pages that a file backs, mapped weights above all: the system can drop and read them again."""
    anonymous_bytes: int | None
    """Pages that nothing backs: they can only be swapped."""
    method: str


def resident() -> Resident:
    """Resident memory of this process now, split where the system tells."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            fields = _status()
            if "RssAnon" in fields:
                files = fields["RssFile"] + fields.get("RssShmem", 0)
                return Resident(fields["VmRSS"], files, fields["RssAnon"], "/proc/self/status")
    import psutil

    process = psutil.Process()
    info = process.memory_info()
    if sys.platform == "win32":
        private = min(int(info.private), int(info.rss))
        return Resident(int(info.rss), int(info.rss) - private, private, "working set, private bytes")
    if sys.platform == "darwin":  # pages of this process alone; those of mapped files are shared with the cache
        with contextlib.suppress(psutil.Error):
            unique = min(int(process.memory_full_info().uss), int(info.rss))
            return Resident(int(info.rss), int(info.rss) - unique, unique, "rss, unique set size")
    return Resident(int(info.rss), None, None, "rss")


def peak_rss_bytes() -> tuple[int, str]:
    """Largest resident set so far, in bytes, and where the figure is from.

    Linux's ``ru_maxrss`` is not used where avoidable: it survives exec, so that a child starts with its parent's peak.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            fields = _status()
            if "VmHWM" in fields:
                return fields["VmHWM"], "VmHWM"
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset), "peak_wset"
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak, "ru_maxrss") if sys.platform == "darwin" else (peak * 1024, "ru_maxrss")


def _status() -> dict[str, int]:
    """The figures of /proc/self/status that have a unit, in bytes."""
    fields = {}
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            fields[name] = int(words[0]) * 1024
    return fields


class MemorySampler:
    """Watches devices from a thread, and this process when told to. Use as a context manager; then ask for the peaks.

    Without devices there is no thread: one that wakes while all cores compute costs several per cent of speed, and the
    system itself keeps the process's peak.
    """

    def __init__(self, devices: Sequence[Device]) -> None:
        """``devices`` carry the free memory they had before: what is used is counted from there."""
        self.devices = tuple(devices)
        self.largest = resident()
        self._least_free = {device.name: device.free_bytes for device in devices}
        self._free_after: dict[str, int] = {}
        self._process_bytes: dict[str, int] = {}
        self._nvml = _Nvml.open()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemorySampler:
        if self.devices or self._nvml is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        if kind is None:
            self.sample()
            self._free_after = {device.name: device_memory(device.handle)[0] for device in self.devices}

    def sample(self) -> None:
        """Look once."""
        now = resident()
        if now.total_bytes > self.largest.total_bytes:
            self.largest = now
        self._sample_devices()

    def _sample_devices(self) -> None:
        for device in self.devices:
            free = device_memory(device.handle)[0]
            self._least_free[device.name] = min(free, self._least_free[device.name])
        if self._nvml is not None:
            for name, used in self._nvml.process_bytes().items():
                self._process_bytes[name] = max(used, self._process_bytes.get(name, 0))

    def peaks(self) -> dict[str, tuple[int, str]]:
        """Bytes and method by kind: ``peak_rss``, its two parts, ``device NAME`` and ``process on NAME``."""
        found = {"peak_rss": peak_rss_bytes()}
        if self.largest.file_bytes is not None and self.largest.anonymous_bytes is not None:
            found["file_rss"] = (self.largest.file_bytes, self.largest.method)
            found["anonymous_rss"] = (self.largest.anonymous_bytes, self.largest.method)
        for device in self.devices:
            used = max(0, device.free_bytes - self._least_free[device.name])
            found[f"device {device.name}"] = (used, "free memory before, less the least free since")
        for name, size in self._process_bytes.items():
            found[f"process on {name}"] = (size, "NVML, this process")
        return found

    def device_memory(self) -> dict[str, dict[str, int]]:
        """Free bytes of each device by its own account: before, at the least, and after the model was closed."""
        return {
            device.name: {
                "free_before_bytes": device.free_bytes,
                "least_free_bytes": self._least_free[device.name],
                "free_after_bytes": self._free_after[device.name],
            }
            for device in self.devices
        }

    def _watch(self) -> None:
        while not self._end.wait(_INTERVAL_SECONDS):
            self._sample_devices()


class _Nvml:
    """NVIDIA's management library, where the ``nvidia`` extra and a driver are present."""

    def __init__(self, library: object, handles: Sequence[object]) -> None:
        self._library, self._handles = library, handles

    @classmethod
    def open(cls) -> _Nvml | None:
        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
            return cls(pynvml, [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)])
        except pynvml.NVMLError:
            return None

    def process_bytes(self) -> dict[str, int]:
        """Memory of this process on each device, by name; a system may hide it."""
        library: object = self._library
        found = {}
        for index, handle in enumerate(self._handles):
            with contextlib.suppress(library.NVMLError):  # type: ignore[attr-defined]
                for process in library.nvmlDeviceGetComputeRunningProcesses(handle):  # type: ignore[attr-defined]
                    if process.pid == os.getpid() and process.usedGpuMemory:
                        found[f"NVIDIA {index}"] = int(process.usedGpuMemory)
        return found
