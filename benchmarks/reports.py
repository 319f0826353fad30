"""How long reports of a large study take: 8 levels x 3 sizes x 30 tasks x 500 items, 360,000 outcomes, made up.

    python benchmarks/reports.py -o benchmarks/results/reports.json

Every report is a process of its own, as a user starts it, in changing order; a Python that only imports what every
report needs (NumPy, rich, typer) stands beside them, so that another machine's seconds can be compared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
SIZE = {"levels": 8, "sizes": 3, "tasks": 30, "items": 500}
BASE = "imports of NumPy, rich and typer"


def seconds(command: list[str], output: Path) -> float:
    with output.open("wb") as out:
        start = time.perf_counter()
        subprocess.run(command, stdout=out, stderr=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start


def conditions(size: Mapping[str, int], study_bytes: int) -> dict[str, Any]:
    """What was run, where, and on what."""
    return {
        "command": " ".join(Path(argument).name for argument in sys.argv),
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "study": {**size, "outcomes": math.prod(size.values()), "bytes": study_bytes},
    }


def show(result: Mapping[str, Any], output: Path | None) -> None:
    """Print the result, and write it where a file is named."""
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if output:
        output.write_text(text, encoding="utf-8")


def main() -> None:
    from synthetic_study import write_study

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = write_study(folder / "study.sqlite", **SIZE)
        report = [sys.executable, "-m", "gguf_eval", "report", str(study)]
        commands = {
            BASE: [sys.executable, "-c", "import numpy, rich, typer"],
            "terminal": report,
            "html": [*report, "-o", str(folder / "report.html")],
            "json": [*report, "--json"],
            "csv": [*report, "--format", "csv"],
        }
        times: dict[str, list[float]] = {kind: [] for kind in commands}
        for turn in range(args.turns + 1):
            for kind in list(commands)[:: -1 if turn % 2 else 1]:
                taken = seconds(commands[kind], folder / f"{kind}.txt")
                if turn:  # the first one fills the caches of files and bytecode
                    times[kind].append(round(taken, 3))
        html_bytes = (folder / "report.html").stat().st_size
        study_bytes = study.stat().st_size
    medians = {kind: statistics.median(taken) for kind, taken in times.items()}
    result = {
        **conditions(SIZE, study_bytes),
        "html_bytes": html_bytes,
        "seconds": times,
        "median_seconds": medians,
        "times_the_imports": {kind: round(taken / medians[BASE], 2) for kind, taken in medians.items()},
    }
    show(result, args.output)


if __name__ == "__main__":
    main()
