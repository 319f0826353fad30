"""Prompt and generation speed beside llama-bench's: the same machine, threads and flash attention, turn and turn about.

    python benchmarks/speed.py --llama-bench llama-bench --models Q8_0.gguf Q4_K_M.gguf -o benchmarks/results/speed.json

Each turn starts llama-bench and `gguf-eval bench` afresh, one after the other, in changing order (A B B A), since a
machine slows down and recovers over seconds; medians over all repetitions are compared. Turns add to those that the
output file holds already, so that a busy machine can be measured in its quiet minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

TESTS = ("pp512", "tg128")


def theirs(tool: Path, model: Path, threads: int, repetitions: int) -> dict[str, list[float]]:
    command = [str(tool), "-m", str(model), "-p", "512", "-n", "128", "-r", str(repetitions), "-t", str(threads),
               "-ngl", "0", "-fa", "1", "-o", "json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=True)
    tests = {}
    for row in json.loads(done.stdout):
        tests[f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"] = row["samples_ts"]
    return tests


def ours(model: Path, threads: int, repetitions: int) -> tuple[dict[str, list[float]], list[str]]:
    command = [sys.executable, "-m", "gguf_eval", "bench", str(model), "-p", "512", "-n", "128", "-r", str(repetitions),
               "-t", str(threads), "-ngl", "0", "-fa", "on", "--json"]  # fmt: skip
    (point,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["points"]
    return {name: test["tokens_per_second"] for name, test in point["tests"].items()}, point["warnings"]


def one_turn(
    args: argparse.Namespace, model: Path, *, ours_first: bool
) -> tuple[dict[str, list[float]], tuple[dict[str, list[float]], list[str]]]:
    measured = ours(model, args.threads, args.repetitions) if ours_first else None
    other = theirs(args.llama_bench, model, args.threads, args.repetitions)
    return other, measured or ours(model, args.threads, args.repetitions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-bench", type=Path, required=True)
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    done = json.loads(args.output.read_text()) if args.output and args.output.exists() else {"models": {}}
    result = {"command": " ".join(Path(argument).name for argument in sys.argv), "models": done["models"]}
    for model in args.models:
        before = done["models"].get(model.stem, {})
        rates: dict[str, dict[str, list[float]]] = before.get("tokens_per_second", {"llama-bench": {}, "gguf-eval": {}})
        warnings: list[str] = before.get("noise_reported", [])
        turns: dict[str, list[float]] = before.get("ratio_by_turn", {test: [] for test in TESTS})
        first = len(turns[TESTS[0]])
        for turn in range(first, first + args.turns):
            other, (measured, told) = one_turn(args, model, ours_first=bool(turn % 2))
            warnings += told
            for test, found in other.items():
                rates["llama-bench"].setdefault(test, []).extend(found)
            for test, found in measured.items():
                rates["gguf-eval"].setdefault(test, []).extend(found)
                turns[test].append(statistics.median(found) / statistics.median(other[test]))
        medians = {who: {test: statistics.median(found[test]) for test in TESTS} for who, found in rates.items()}
        ratios = {test: medians["gguf-eval"][test] / medians["llama-bench"][test] for test in TESTS}
        result["models"][model.stem] = {
            "tokens_per_second": rates,
            "medians": medians,
            "ratio_of_medians": ratios,
            "ratio_by_turn": turns,
            "median_ratio_by_turn": {test: statistics.median(found) for test, found in turns.items()},
            "noise_reported": warnings,
        }
        print(
            model.stem,
            medians,
            ratios,
            {test: result["models"][model.stem]["median_ratio_by_turn"][test] for test in TESTS},
            flush=True,
        )
        if args.output:
            args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
