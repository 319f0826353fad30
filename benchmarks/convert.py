"""Speed and memory of `gguf-eval convert`: beside llama.cpp's own converter, beside a plain copy, and by model size.

    python benchmarks/convert.py CHECKPOINT [--upstream PYTHON LLAMA_CPP_FOLDER] [--scratch FOLDER]

CHECKPOINT is a small real checkpoint (SmolLM2-135M as half precision: 269 MB). With ``--upstream`` the converter of
that llama.cpp tree is run on it with that Python (which needs torch and transformers), turn by turn with ours, and
the two files compared. Then synthetic sharded checkpoints of 0.75 and 3 GB are converted, turn by turn with a copy of
the same checkpoint, both until the bytes are on the disk and both with the input in the page cache: `of_copy_speed` is
the median over the turns of bytes read and written a second, beside those of the copy in the same turn. Every run is a
process of its own, and its seconds include starting and planning, which `planning_seconds` tells (a dry run);
`of_copy_speed_once_planned` leaves them out. Peak memory is read from /proc
(Linux), without and with pages of files. The package mistral-common, which tests use, should not be installed: gguf
imports it where it is, for half a second. Figures go to benchmarks/results/convert.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from checkpoints import Spec, make  # noqa: E402
from checkpoints import tiny as tiny_spec  # noqa: E402

REPEATS = 3
SIZE_REPEATS = 5
Json = dict[str, Any]


def run(command: list[str]) -> Json:
    """Run a process; returns its seconds, those of processor time, and its peak resident memory in bytes.

    Memory is given without and with the pages of mapped files.
    """
    peak = {"anonymous_bytes": 0, "resident_bytes": 0}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)

    def watch() -> None:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            try:
                rows = dict(line.split(":", 1) for line in status.read_text().splitlines())
            except OSError:
                return
            for name, key in (("anonymous_bytes", "RssAnon"), ("resident_bytes", "VmRSS")):
                if key in rows:
                    peak[name] = max(peak[name], int(rows[key].split()[0]) * 1024)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, errors = process.communicate()
    seconds = time.perf_counter() - start
    watcher.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{errors.decode()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 3), "cpu_seconds": round(processor, 3), **peak}


def ours(checkpoint: Path, out: Path, out_type: str) -> list[str]:
    return [sys.executable, "-m", "gguf_eval", "convert", str(checkpoint), "-o", str(out), "--outtype", out_type]


def best(runs: list[Json]) -> Json:
    """All seconds, their minimum, and the highest memory."""
    seconds = [entry["seconds"] for entry in runs]
    highest = {key: max(entry[key] for entry in runs) for key in ("anonymous_bytes", "resident_bytes")}
    cpu = min(entry["cpu_seconds"] for entry in runs)
    return {"seconds": seconds, "best_seconds": min(seconds), "cpu_seconds": cpu, **highest}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def against_upstream(checkpoint: Path, python: str, llama_cpp: Path, scratch: Path) -> Json:
    """Convert to F16 in turns; returns both and the ratio."""
    mine, theirs = scratch / "ours.gguf", scratch / "theirs.gguf"
    script = [python, str(llama_cpp / "convert_hf_to_gguf.py"), str(checkpoint), "--outfile", str(theirs)]
    runs: dict[str, list[Json]] = {"ours": [], "upstream": []}
    for _ in range(REPEATS):
        runs["ours"].append(run(ours(checkpoint, mine, "f16")))
        runs["upstream"].append(run([*script, "--outtype", "f16"]))
    same = sha256(mine) == sha256(theirs)
    mine.unlink()
    theirs.unlink()
    result: Json = {name: best(entries) for name, entries in runs.items()}
    result["times_faster"] = round(result["upstream"]["best_seconds"] / result["ours"]["best_seconds"], 2)
    result["same_file"] = same
    return result


def synthetic(folder: Path, layers: int) -> Path:
    """Write a sharded bfloat16 Llama of 2048 x 5632 with ``layers`` layers, about 90 MB each."""
    spec: Spec = tiny_spec(dtype="BF16", hidden=2048, inner=5632, layers=layers, heads=32, kv_heads=8, shards=4)
    return make(folder, spec)


def copy_seconds(folder: Path, target: Path) -> float:
    """Seconds to copy the checkpoint's weights within the file system and see them on the disk."""
    start = time.perf_counter()
    with target.open("wb") as out:
        for path in sorted(folder.glob("*.safetensors")):
            with path.open("rb") as file:
                shutil.copyfileobj(file, out, 1 << 20)
        os.fsync(out.fileno())
    seconds = time.perf_counter() - start
    target.unlink()
    return round(seconds, 3)


def synced(entry: Json, path: Path) -> Json:
    """Add the time until the file is on the disk."""
    start = time.perf_counter()
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return entry | {"seconds": round(entry["seconds"] + time.perf_counter() - start, 3)}


def by_size(scratch: Path) -> list[Json]:
    rows = []
    for layers in (8, 33):
        folder = scratch / f"synthetic-{layers}"
        if not folder.is_dir():
            synthetic(folder, layers)
        copy_seconds(folder, scratch / "copy")  # brings the input into memory
        planning = min(run([*ours(folder, scratch / "none", "auto"), "--dry-run"])["seconds"] for _ in range(2))
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        for out_type in ("auto", "f16", "q8_0"):
            out = scratch / "out.gguf"
            copies, runs = [], []
            for _ in range(SIZE_REPEATS):
                copies.append(copy_seconds(folder, scratch / "copy"))
                runs.append(synced(run(ours(folder, out, out_type)), out))
            row = {"input_bytes": size, "out_type": out_type, "output_bytes": out.stat().st_size, **best(runs)}
            row["planning_seconds"] = planning
            row["copy_seconds"] = copies
            moved = size + row["output_bytes"]
            turns = list(zip(row["seconds"], copies, strict=True))
            row["bytes_per_second"] = round(moved / statistics.median(row["seconds"]))
            row["copy_bytes_per_second"] = round(2 * size / statistics.median(copies))
            for name, start in (("of_copy_speed", 0.0), ("of_copy_speed_once_planned", planning)):
                ratios = [(moved / (taken - start)) / (2 * size / copied) for taken, copied in turns]
                row[name] = round(statistics.median(ratios), 2)
            out.unlink()
            rows.append(row)
            print(json.dumps(row), file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--upstream", nargs=2, metavar=("PYTHON", "LLAMA_CPP_FOLDER"))
    parser.add_argument("--scratch", type=Path, default=Path("convert-benchmark"))
    parser.add_argument("--part", choices=("upstream", "size", "all"), default="all")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    target = ROOT / "benchmarks" / "results" / "convert.json"
    result: Json = json.loads(target.read_text()) if target.is_file() else {}
    result["load_average"] = os.getloadavg()
    result["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, numpy {np.__version__}"
    if arguments.upstream and arguments.part != "size":
        python, llama_cpp = arguments.upstream
        result["smollm2_135m_f16"] = against_upstream(arguments.checkpoint, python, Path(llama_cpp), arguments.scratch)
        print(json.dumps(result["smollm2_135m_f16"]), file=sys.stderr)
    if arguments.part != "upstream":
        result["synthetic"] = by_size(arguments.scratch)
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
