"""Memory predicted from the header beside what is measured, and what is measured beside what the system itself says.

    python benchmarks/memory.py --models *.gguf -o benchmarks/results/memory.json

Every model at contexts of 512, 4096 and 8192 tokens and with the cache in F16 and Q8_0: a worker process decodes a prompt
of 512 tokens; its peak resident memory, less what it had before the model was loaded, is compared with the prediction,
and llama.cpp's own buffers with the predicted ones. Once a model the worker runs under ``/usr/bin/time -v``. Results that
the output file holds already are kept, so that the models can be measured in several turns.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from gguf_eval.runtime.settings import CPU_ONLY, EngineSettings
from gguf_eval.study.job import encode_job
from gguf_eval.study.stages.speed import SpeedJob

CONTEXTS = (512, 4096, 8192)
CACHE_TYPES = ("F16", "Q8_0")
MIB = 2**20


def run(job: SpeedJob, timed: bool) -> tuple[dict[str, dict], int | None]:
    """Events of the job by kind, and what /usr/bin/time calls its maximum resident set."""
    command = [*(["/usr/bin/time", "-v"] if timed else []), sys.executable, "-m", "gguf_eval.study.worker"]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    worker.stdin.write(encode_job(job) + b"\n")
    worker.stdin.flush()
    import threading

    errors: list[bytes] = []
    reader = threading.Thread(target=lambda: errors.append(worker.stderr.read()))
    reader.start()
    events = {}
    for line in worker.stdout:
        event = json.loads(line)
        events[event["event"]] = event
    worker.stdin.close()
    worker.wait()
    reader.join()
    found = re.search(rb"Maximum resident set size \(kbytes\): (\d+)", errors[0])
    return events, int(found[1]) * 1024 if found else None


def measure(model: Path, context: int, cache_type: str, threads: int, timed: bool) -> dict[str, object]:
    engine = EngineSettings(CPU_ONLY, cache_type, cache_type, 1)
    job = SpeedJob(str(model), context, (512,), (), 1, threads, engine)
    events, system_peak = run(job, timed)
    memory = {kind: size for kind, (size, _) in events["memory"]["memory"].items()}
    details = events["details"]["details"]
    buffers = sum(buffer["size_bytes"] for buffer in details["buffers"])
    measured = memory["peak_rss"] - memory["rss_before_load"]
    predicted = details["predicted"]["resident_bytes"]
    row = {
        "level": model.stem,
        "context": context,
        "cache_type": cache_type,
        "peak_rss_bytes": memory["peak_rss"],
        "file_rss_bytes": memory.get("file_rss"),
        "anonymous_rss_bytes": memory.get("anonymous_rss"),
        "model_bytes_measured": measured,
        "model_bytes_predicted": predicted,
        "error": predicted / measured - 1,
        "error_mib": (predicted - measured) / MIB,
        "buffers_bytes": buffers,
        "buffers_predicted_bytes": details["predicted"]["total_bytes"],
        "buffers_error": details["predicted"]["total_bytes"] / buffers - 1,
    }
    if system_peak:
        row |= {"time_v_peak_bytes": system_peak, "peak_over_time_v": memory["peak_rss"] / system_peak}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    rows = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
    known = {(row["level"], row["context"], row["cache_type"]) for row in rows}
    for model in args.models:
        for context in CONTEXTS:
            for cache_type in CACHE_TYPES:
                if (model.stem, context, cache_type) in known:
                    continue
                timed = context == 4096 and Path("/usr/bin/time").exists()
                row = measure(model, context, cache_type, args.threads, timed)
                rows.append(row)
                print(row["level"], context, cache_type, f"{row['error']:+.1%} {row['error_mib']:+.1f} MiB",
                      f"buffers {row['buffers_error']:+.2%}", row.get("peak_over_time_v", ""), flush=True)  # fmt: skip
                write(args.output, rows)


def write(path: Path, rows: list[dict]) -> None:
    bad = [row for row in rows if abs(row["error"]) > 0.05 and abs(row["error_mib"]) > 32]
    ratios = [row["peak_over_time_v"] for row in rows if "peak_over_time_v" in row]
    summary = {
        "made_by": "python benchmarks/memory.py --models *.gguf -o memory.json",
        "outside_5_percent_and_32_mib": len(bad),
        "largest_error": max((row["error"] for row in rows), key=abs),
        "largest_error_mib": max((row["error_mib"] for row in rows), key=abs),
        "largest_buffers_error": max((row["buffers_error"] for row in rows), key=abs),
        "peak_over_time_v": [min(ratios), max(ratios)] if ratios else None,
        "rows": rows,
    }
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
