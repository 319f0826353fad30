"""Looks at what this machine offers, what would go wrong on it, and the command that mends it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gguf_eval.errors import EngineError
from gguf_eval.files.cache import cache_dir
from gguf_eval.files.footprint import cpu_features
from gguf_eval.machine import describe_machine, machine_state, memory_limit_bytes, processor_flags
from gguf_eval.runtime.settings import Offload
from gguf_eval.study.job import Emit
from gguf_eval.study.process import run_in_worker

_REINSTALL = "pip install --force-reinstall --no-cache-dir llama-cpp-python"
_LITTLE_DISK_BYTES = 10_000_000_000
_LITTLE_MEMORY_SHARE = 0.25
_HUB_SECONDS = 3.0
_FLAGS = {"AVX2": "avx2", "FMA": "fma", "AVX512": "avx512f", "DOTPROD": "asimddp", "MATMUL_INT8": "i8mm"}
"""llama.cpp's names of instruction sets, and Linux's."""


@dataclass(frozen=True)
class Problem:
    """Something that would go wrong or slowly."""

    what: str
    command: str
    """What mends it."""


@dataclass(frozen=True)
class Examination:
    """What was found."""

    machine: dict[str, Any]
    build: dict[str, Any]
    """llama.cpp's build; empty when it does not load."""
    build_error: str | None
    cache: Path
    devices: tuple[dict[str, Any], ...] = ()
    """Those llama.cpp can compute on: name, description, kind, free_bytes, total_bytes."""
    backends: tuple[str, ...] = ()
    """What this build of llama.cpp can compute with, by ggml's names."""
    memory_available_bytes: int = 0
    memory_limit_bytes: int = 0
    disk_free_bytes: int = 0
    hub: str = ""
    """Whether the hub answers, in words."""
    energy_sources: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def examine(offload: Offload | None = None) -> Examination:
    """Ask the system, and a worker process for llama.cpp's build and devices."""
    import psutil

    from gguf_eval.runtime.energy import EnergyMeter

    error = None
    found: dict[str, dict[str, Any]] = {}
    try:
        found = _ask(offload or Offload())
    except EngineError as failure:
        error = str(failure)
    build = {key: value for key, value in found.get("build", {}).items() if key != "event"}
    devices = tuple(found.get("devices", {}).get("devices", ()))
    cache = cache_dir()
    meter = EnergyMeter()
    meter.close()
    hub, hub_problems = _hub()
    problems = [
        *_build_problems(build, error, devices),
        *_machine_problems(cache, psutil.virtual_memory().available),
        *hub_problems,
        *_energy_problems(meter.sources),
    ]
    return Examination(
        machine=describe_machine(),
        build=build,
        build_error=error,
        cache=cache,
        devices=devices,
        backends=tuple(found.get("devices", {}).get("backends", ())),
        memory_available_bytes=psutil.virtual_memory().available,
        memory_limit_bytes=memory_limit_bytes(),
        disk_free_bytes=_disk_free(cache),
        hub=hub,
        energy_sources=meter.sources,
        problems=tuple(problems),
    )


def build_features() -> frozenset[str]:
    """The processor's instruction sets that the installed llama.cpp uses; none where it does not load."""
    try:
        return cpu_features(_ask(Offload())["build"]["system_info"])
    except EngineError:
        return frozenset()


def check_offload(offload: Offload) -> None:
    """Refuse layers, devices or servers that this machine does not have, before anything is loaded."""
    if offload.gpu_layers or offload.devices or offload.rpc:
        _ask(offload)


@dataclass(frozen=True)
class BuildJob:
    """Say which llama.cpp this is and what devices it finds. Events: ``build``, ``devices``."""

    offload: Offload = field(default_factory=Offload)
    """Refused where it can't be had."""


def work(job: BuildJob, emit: Emit) -> None:
    """The worker's side."""
    from gguf_eval.llama.devices import backends, devices
    from gguf_eval.llama.library import build_info
    from gguf_eval.runtime.devices import check_layers_possible, chosen_devices

    emit({"event": "build", **build_info()})
    check_layers_possible(job.offload, chosen_devices(job.offload))
    emit({"event": "devices", "devices": [asdict(device) for device in devices()], "backends": backends()})


def _ask(offload: Offload) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        run_in_worker(
            BuildJob(offload), Path(folder) / "build.log", lambda event: found.update({event["event"]: event})
        )
    return found


def _build_problems(build: dict[str, Any], error: str | None, devices: Iterable[dict[str, Any]]) -> list[Problem]:
    if error:
        return [Problem(f"llama.cpp does not load ({error}): nothing can be measured", _REINSTALL)]
    problems = []
    kinds = {device["kind"] for device in devices}
    if not kinds & {"GPU", "integrated GPU"}:
        if shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists():
            what = "an NVIDIA device is here, but this llama.cpp computes on the processor alone"
            problems.append(Problem(what, f'CMAKE_ARGS="-DGGML_CUDA=on" {_REINSTALL}'))
        elif sys.platform == "darwin" and build and "arm" in describe_machine()["architecture"]:
            what = "this Mac has a GPU, but this llama.cpp was built without Metal"
            problems.append(Problem(what, f'CMAKE_ARGS="-DGGML_METAL=on" {_REINSTALL}'))
    flags, used = processor_flags(), cpu_features(build.get("system_info", ""))
    unused = [name for name, flag in _FLAGS.items() if flag in flags and name not in used]
    if build and unused:
        what = (
            f"the processor has {', '.join(unused)}, this llama.cpp was built without: it computes slower than it could"
        )
        problems.append(Problem(what, f'CMAKE_ARGS="-DGGML_NATIVE=on" {_REINSTALL}'))
    return problems


def _machine_problems(cache: Path, available_bytes: int) -> list[Problem]:
    problems = []
    if not os.access(_existing(cache), os.W_OK):
        problems.append(Problem(f"the cache folder {cache} can't be written", "export GGUF_EVAL_CACHE=FOLDER"))
    free = _disk_free(cache)
    if free < _LITTLE_DISK_BYTES:
        what = f"{free / 1e9:.1f} GB are free where model files are kept: one level of a 7B model takes 3 to 15 GB"
        problems.append(Problem(what, "export GGUF_EVAL_CACHE=FOLDER (on a larger disk)"))
    if available_bytes < _LITTLE_MEMORY_SHARE * memory_limit_bytes():
        what = f"{available_bytes / 1e9:.1f} GB of memory are available, the rest is in use: models may be swapped"
        problems.append(Problem(what, "end other programs, or --max-memory to be safe"))
    state = machine_state()
    if state.get("governor") == "powersave":
        what = "the processor's clock is governed to save power: speeds will vary"
        problems.append(Problem(what, "sudo cpupower frequency-set -g performance"))
    if str(state.get("power", "")).startswith("battery"):
        problems.append(Problem(f"the machine runs on {state['power']}: speeds will be lower", "plug it in"))
    return problems


def _energy_problems(sources: tuple[str, ...]) -> list[Problem]:
    counter = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
    if not sources and counter.exists() and not os.access(counter, os.R_OK):
        what = "the processor counts its energy, but only root may read it: joules are left out"
        return [Problem(what, "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj")]
    if shutil.which("nvidia-smi") and not any(source.startswith("NVML") for source in sources):
        return [Problem("energy and memory of the NVIDIA device are left out", "pip install 'gguf-eval[nvidia]'")]
    return []


def _hub() -> tuple[str, list[Problem]]:
    """Whether the hub that datasets and checkpoints come from answers."""
    import urllib.error
    import urllib.request

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        what = "the hub is switched off (HF_HUB_OFFLINE): tasks from it need --mirror"
        return "switched off", [Problem(what, "unset HF_HUB_OFFLINE")]
    endpoint = constants.ENDPOINT
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=_HUB_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "reason", failure)
        what = f"{endpoint} does not answer ({reason}): only offline tasks and local files work"
        return f"{endpoint} does not answer", [Problem(what, "export HF_ENDPOINT=URL (a mirror), or 'run -t offline'")]
    return f"{endpoint} answers", []


def _existing(folder: Path) -> Path:
    return next((parent for parent in (folder, *folder.parents) if parent.exists()), Path())


def _disk_free(folder: Path) -> int:
    return shutil.disk_usage(_existing(folder)).free
