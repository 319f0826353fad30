"""What reports of a very large study take: 8 levels x 2 sizes x 25 tasks x 5,000 items, 2,000,000 outcomes, made up.

    python benchmarks/large_reports.py -o benchmarks/results/large_reports.json

Every report is a process of its own, as a user starts it: its seconds, and the most memory it had (resident, as the
system counts it for a process that has ended; Linux and macOS).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from reports import conditions, show

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
SIZE = {"levels": 8, "sizes": 2, "tasks": 25, "items": 5000}
MOST_BYTES = 700_000_000
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


def measured(command: list[str], output: Path, written: Path | None) -> dict[str, Any]:
    """Run a command; what it took, and how much it wrote to ``written``, or to its standard output."""
    with output.open("wb") as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_bytes": usage.ru_maxrss * _MAXRSS_BYTES,
        "written_bytes": (written or output).stat().st_size,
    }


def main() -> None:
    from synthetic_study import write_study

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = write_study(folder / "study.sqlite", **SIZE)
        found = {}
        for kind, ending in (("terminal", ""), ("html", "html"), ("csv", "csv"), ("jsonl", "jsonl"),
                             ("parquet", "parquet")):  # fmt: skip
            command = [sys.executable, "-m", "gguf_eval", "report", str(study)]
            written = folder / f"report.{ending}" if ending else None
            if written is not None:
                command += ["-o", str(written), *(["--items"] if kind in ("csv", "jsonl", "parquet") else [])]
            found[kind] = measured(command, folder / "printed.txt", written)
            print(kind, found[kind], file=sys.stderr, flush=True)
            if written is not None:
                written.unlink()  # a gigabyte, some of them
        study_bytes = study.stat().st_size
    result = {
        **conditions(SIZE, study_bytes),
        "most_bytes_allowed": MOST_BYTES,
        "all_below": all(row["peak_bytes"] < MOST_BYTES for row in found.values()),
        "reports": found,
    }
    show(result, args.output)


if __name__ == "__main__":
    main()
