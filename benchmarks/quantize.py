"""Compares gguf-eval's quantizing and importance matrices with llama.cpp's own tools of the same build.

    python benchmarks/quantize.py equal   --tools BIN --model F16.gguf --text TEXT
    python benchmarks/quantize.py imatrix --tools BIN --model F16.gguf --text TEXT
    python benchmarks/quantize.py speed   --tools BIN --model F16.gguf --text TEXT
    python benchmarks/quantize.py quality --tools BIN --model F16.gguf --text HELD_OUT_TEXT
    python benchmarks/quantize.py memory  --tools BIN --model F16.gguf --text TEXT

`equal`: tensor bytes of every level, with and without an importance matrix, and with tensor types set by pattern.
`imatrix`: the values of the importance matrix. `speed`: wall time of the standard ladder and of an imatrix,
both tools in turn. `quality`: mean KL divergence from F16 on held-out text of low levels, with and without the
importance matrix of the calibration text that ships. `memory`: what `inspect` predicts against the load log.

BIN holds llama-quantize, llama-imatrix and llama-perplexity, built from the llama.cpp that llama-cpp-python carries.
Results go to benchmarks/results/quantize_<what>.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gguf_eval.files.footprint import predict_footprint
from gguf_eval.files.header import read_header
from gguf_eval.files.imatrix_file import read_imatrix
from gguf_eval.files.levels import levels
from gguf_eval.files.plan import read_headers
from gguf_eval.files.provenance import library_version
from gguf_eval.files.recipes import find_ladder

RESULTS = Path(__file__).parent / "results"
OVERRIDES = (("attn_(q|k)\\.weight", "Q8_0"), ("blk\\.[0-3]\\.ffn_down", "Q6_K"), ("ffn_up", "IQ4_NL"))


def run(command: list[str | Path]) -> tuple[float, str]:
    """Run a program to its end; return seconds and everything it wrote."""
    started = time.perf_counter()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, errors="replace", check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")
    return seconds, done.stdout + done.stderr


def ours(*arguments: str | Path) -> float:
    return run([sys.executable, "-m", "gguf_eval", *arguments])[0]


def tensor_differences(one: Path, other: Path) -> list[str]:
    """Names of tensors that differ in type, shape or any byte."""
    first, second = read_header(one), read_header(other)
    if [t.name for t in first.tensors] != [t.name for t in second.tensors]:
        return ["the lists of tensors"]
    with one.open("rb") as a, other.open("rb") as b:
        found = []
        for x, y in zip(first.tensors, second.tensors, strict=True):
            a.seek(first.data_offset + x.offset)
            b.seek(second.data_offset + y.offset)
            if (x.type_name, x.shape) != (y.type_name, y.shape) or a.read(x.size_bytes) != b.read(y.size_bytes):
                found.append(x.name)
    return found


def imatrix(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Make the importance matrix with both tools and compare every value."""
    chunks, threads = str(args.chunks), str(args.threads)
    run(
        [
            args.tools / "llama-imatrix",
            "-m",
            args.model,
            "-f",
            args.text,
            "--chunks",
            chunks,
            "-t",
            threads,
            "-ngl",
            "0",
            "--no-ppl",
            "-o",
            folder / "theirs.imatrix.gguf",
        ]
    )
    ours(
        "imatrix",
        args.model,
        "--text",
        args.text,
        "--chunks",
        chunks,
        "--threads",
        threads,
        "-o",
        folder / "ours.imatrix.gguf",
    )
    mine, theirs = (read_imatrix(folder / f"{tool}.imatrix.gguf").entries for tool in ("ours", "theirs"))
    relative = [
        float(np.max(np.abs(mine[name].sums - entry.sums) / np.maximum(entry.sums, 1e-30)))
        for name, entry in theirs.items()
    ]
    return {
        "chunks": args.chunks,
        "tensors": len(theirs),
        "same_tensors": sorted(mine) == sorted(theirs),
        "same_counts": all((mine[name].counts == entry.counts).all() for name, entry in theirs.items()),
        "largest_relative_difference": max(relative),
        "median_of_tensors_largest": float(np.median(relative)),
    }


def equal(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    compared_imatrix = imatrix(args, folder)
    theirs_imatrix, threads = folder / "theirs.imatrix.gguf", str(args.threads)
    rows = []
    mix = folder / "mix.toml"
    mix.write_text(
        'level = "Q4_K_M"\noutput_type = "Q8_0"\nembedding_type = "Q5_1"\n'
        + "".join(f"[[tensor_types]]\npattern = '{p}'\ntype = \"{t}\"\n" for p, t in OVERRIDES)
    )
    types = [part for pattern, kind in OVERRIDES for part in ("--tensor-type", f"{pattern}={kind}")]
    mix_options = [*types, "--output-tensor-type", "Q8_0", "--token-embedding-type", "Q5_1"]
    cases: list[tuple[str, str, list[str], list[str], bool]] = []
    for level in levels():
        cases.append((level, level, ["-q", level], [], False))
        cases.append((level, level, ["-q", level], [], True))
    for with_imatrix in (False, True):
        cases.append(("Q4_K_M with tensor types", "Q4_K_M", ["--recipe", str(mix)], mix_options, with_imatrix))
        cases.append(("Q4_0 pure", "Q4_0", ["--recipe", "Q4_0_pure"], ["--pure"], with_imatrix))
    for name, level, our_options, their_options, with_imatrix in cases:
        made = folder / "made"
        for old in made.glob("*.gguf"):
            old.unlink()
        theirs = folder / "theirs.gguf"
        theirs.unlink(missing_ok=True)
        matrix = ["--imatrix", str(theirs_imatrix)] if with_imatrix else []
        command = [args.tools / "llama-quantize", *matrix, *their_options, args.model, theirs, level, threads]
        refused = subprocess.run(list(map(str, command)), capture_output=True, check=False).returncode
        our_command = ["quantize", args.model, *our_options, *matrix, "-o", made, "--threads", threads]
        mine = subprocess.run(
            [sys.executable, "-m", "gguf_eval", *map(str, our_command)], capture_output=True, text=True, check=False
        )
        row: dict[str, object] = {"case": name, "imatrix": with_imatrix}
        if refused or mine.returncode:
            row |= {"refused_by_llama_quantize": bool(refused), "refused_by_gguf_eval": mine.stderr.strip() or False}
        else:
            # A level that the source has already is not written again: the source itself is compared.
            out = next(iter(made.glob("*.gguf")), args.model)
            row |= {"different_tensors": tensor_differences(out, theirs), "size_bytes": out.stat().st_size}
        rows.append(row)
        print(row, flush=True)
    compared = [row for row in rows if "different_tensors" in row]
    return {
        "imatrix": compared_imatrix,
        "compared": len(compared),
        "equal": sum(not row["different_tensors"] for row in compared),
        "refused_by_both": sum(
            bool(row.get("refused_by_llama_quantize")) and bool(row["refused_by_gguf_eval"])
            for row in rows
            if row not in compared
        ),
        "cases": rows,
    }


def speed(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    levels = [recipe.level for recipe in find_ladder("standard") if recipe.level != "F16"]
    threads = str(args.threads)

    def our_ladder() -> None:
        ours("quantize", args.model, "-q", ",".join(levels), "-o", folder / "ladder", "--threads", threads)

    def their_ladder() -> None:
        for level in levels:
            run([args.tools / "llama-quantize", args.model, folder / f"{level}.gguf", level, threads])

    text = [args.text, "--chunks", str(args.chunks)]

    def our_imatrix() -> None:
        ours("imatrix", args.model, "--text", *text, "--threads", threads, "-o", folder / "ours.imatrix.gguf")

    def their_imatrix() -> None:
        run(
            [
                args.tools / "llama-imatrix",
                "-m",
                args.model,
                "-f",
                *text,
                "-t",
                threads,
                "-ngl",
                "0",
                "-o",
                folder / "theirs.imatrix.gguf",
            ]
        )

    found: dict[str, object] = {"levels": levels, "threads": args.threads, "imatrix_chunks": args.chunks}
    for name, pair in (("ladder", (our_ladder, their_ladder)), ("imatrix", (our_imatrix, their_imatrix))):
        times: dict[str, list[tuple[float, float]]] = {"gguf_eval": [], "llama_cpp": []}
        for turn in range(args.turns):
            order = list(zip(times, pair, strict=True))
            for tool, work in order if turn % 2 == 0 else reversed(order):
                times[tool].append(timed(work))
                for file in (*(folder / "ladder").glob("*.gguf"), *folder.glob("*.gguf")):
                    file.unlink()
            print(name, times, flush=True)
        best = {tool: [min(column) for column in zip(*rows, strict=True)] for tool, rows in times.items()}
        found[name] = {
            "wall_and_cpu_seconds": times,
            "wall_ratio": best["gguf_eval"][0] / best["llama_cpp"][0],
            "cpu_ratio": best["gguf_eval"][1] / best["llama_cpp"][1],
        }
    found["ratios_are"] = "of the smallest of each tool's turns"
    found["load_average"] = os.getloadavg() if hasattr(os, "getloadavg") else None
    return found


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Wall seconds, and processor seconds of all child processes, which other work on the machine disturbs less."""
    before, started = os.times(), time.perf_counter()
    work()
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - started, cpu


def quality(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    matrix, logits = folder / "calibration.imatrix.gguf", folder / "logits"
    ours("imatrix", args.model, "--chunks", str(args.chunks), "-o", matrix)
    tool = args.tools / "llama-perplexity"
    shared = ["-f", args.text, "--chunks", str(args.held_out_chunks), "-t", str(args.threads), "-ngl", "0"]
    run([tool, "-m", args.model, *shared, "--kl-divergence-base", logits])
    rows = []
    for level in args.levels.split(","):
        for with_imatrix in (False, True):
            made = folder / f"{level}-{with_imatrix}"
            options = ["--imatrix", str(matrix)] if with_imatrix else []
            command = ["quantize", args.model, "-q", level, *options, "-o", made]
            done = subprocess.run(
                [sys.executable, "-m", "gguf_eval", *map(str, command)], capture_output=True, text=True, check=False
            )
            row: dict[str, object] = {"level": level, "imatrix": with_imatrix}
            if done.returncode:
                row["refused"] = done.stderr.strip()
            else:
                file = next(made.glob("*.gguf"))
                log = run([tool, "-m", file, *shared, "--kl-divergence", "--kl-divergence-base", logits])[1]
                row |= {"size_bytes": file.stat().st_size, **divergence(log)}
                file.unlink()
            rows.append(row)
            print(row, flush=True)
    return {
        "calibration": f"the text that ships, {args.chunks} chunks of 512 tokens",
        "held_out": f"{args.text.name}, {args.held_out_chunks} chunks of 512 tokens",
        "rows": rows,
    }


def divergence(log: str) -> dict[str, float]:
    mean = re.search(r"Mean\s+KLD:\s+([-\d.]+)\s*±\s*([\d.]+)", log)
    same = re.search(r"Same top p:\s+([\d.]+)", log)
    perplexity = re.search(r"Mean PPL\(Q\)\s*:\s+([\d.]+)", log)
    if not (mean and same and perplexity):
        raise SystemExit(f"no divergence in llama-perplexity's output:\n{log[-2000:]}")
    return {
        "mean_kld": float(mean[1]),
        "mean_kld_error": float(mean[2]),
        "same_top_percent": float(same[1]),
        "perplexity": float(perplexity[1]),
    }


def memory(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Load with each context in llama.cpp and read the buffer sizes in its log."""
    script = (
        "import sys, llama_cpp as l\n"
        "l.llama_log_set(l.llama_log_callback(), None); l.llama_backend_init()\n"
        "m = l.llama_model_load_from_file(sys.argv[1].encode(), l.llama_model_default_params())\n"
        "p = l.llama_context_default_params(); p.n_ctx = int(sys.argv[2]); p.n_ubatch = 512\n"
        "c = l.llama_init_from_model(m, p)\n"
    )
    rows = []
    for context in (512, 2048, 4096, 8192):
        log = run([sys.executable, "-c", script, args.model, str(context)])[1]
        measured = {
            part: 2**20 * sum(float(size) for size in re.findall(rf"{words}\s*=\s*([\d.]+) MiB", log))
            for part, words in (
                ("weights", "model buffer size"),
                ("kv", "KV buffer size"),
                ("compute", "compute buffer size"),
                ("output", "output buffer size"),
            )
        }
        predicted = predict_footprint(read_headers(args.model), context)
        total = sum(measured.values())
        row = {
            "context": context,
            "measured_bytes": {part: round(size) for part, size in measured.items()},
            "predicted_bytes": {
                "weights": predicted.weights_bytes,
                "kv": predicted.kv_bytes,
                "compute": predicted.compute_bytes,
            },
            "total_error": predicted.total_bytes / total - 1,
        }
        rows.append(row)
        print(row, flush=True)
    return {"rows": rows, "measured_is": "the buffer sizes of llama.cpp's load log, CPU, flash attention on automatic"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("equal", "imatrix", "speed", "quality", "memory"))
    parser.add_argument("--tools", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--chunks", type=int, default=40)
    parser.add_argument("--held-out-chunks", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--levels", default="Q2_K,IQ3_XXS,Q3_K_M,Q4_K_M")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("GGUF_EVAL_CACHE", folder)
        what = {"equal": equal, "imatrix": imatrix, "speed": speed, "quality": quality, "memory": memory}[args.what]
        found = what(args, Path(folder))
    options = {key: value.name if isinstance(value, Path) else value for key, value in vars(args).items()}
    command = f"python benchmarks/quantize.py {args.what} --tools BIN --model {args.model.name} --text {args.text.name}"
    record = {
        "command": command,
        "options": {key: value for key, value in options.items() if key != "tools"},
        "library": library_version(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()},
        **found,
    }
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"quantize_{args.what}.json"
    target.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
