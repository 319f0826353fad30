"""Compares perplexity and KL divergence with llama-perplexity's, and the estimator with the whole sum.

    python benchmarks/divergence.py estimator REFERENCE.gguf CANDIDATE.gguf... --text wiki.test.raw
    python benchmarks/divergence.py native REFERENCE.gguf CANDIDATE.gguf... --text wiki.test.raw --program llama-perplexity
    python benchmarks/divergence.py time   REFERENCE.gguf CANDIDATE.gguf... --text wiki.test.raw --program llama-perplexity
    python benchmarks/divergence.py memory REFERENCE.gguf CANDIDATE.gguf --text wiki.test.raw

`estimator` decodes the reference and all candidates window by window in one process, and compares the estimate from the
condensed reference with the whole sum over the vocabulary on the same logits. `native` runs llama-perplexity of the same
llama.cpp version (its base file is kept in --folder and used again) and `gguf-eval perplexity` once each, for their
figures. `time` runs both in turn --turns times as whole commands, with the references stored before. `memory` gives the
peak memory of the processes that store a reference and that compare with it, at several numbers of windows, beside that
of a process that only computes the perplexity of one window. Each writes its part of benchmarks/results/divergence.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gguf_eval.files.cache import file_sha256
from gguf_eval.llama.library import build_info
from gguf_eval.machine import describe_machine
from gguf_eval.report.progress import console_observer
from gguf_eval.runtime.divergence import Compared, compare_exactly, compare_with_stored, condense, reference_dtype
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.perplexity import decode_windows, open_window_context, plan_windows
from gguf_eval.runtime.settings import EngineSettings
from gguf_eval.study.perplexity import run_texts
from gguf_eval.study.stages.state import TextRequest
from gguf_eval.study.stages.text import TextModel
from gguf_eval.tasks.texts import TextFile

RESULT = Path(__file__).parent / "results" / "divergence.json"
PATTERNS = {
    "perplexity": r"Mean PPL\(Q\)\s*:\s*([\d.]+)",
    "reference_perplexity": r"Mean PPL\(base\)\s*:\s*([\d.]+)",
    "mean": r"Mean\s+KLD:\s*([\d.]+)",
    "median": r"Median\s+KLD:\s*([\d.]+)",
    "90%": r"90\.0%\s+KLD:\s*([\d.]+)",
    "99%": r"99\.0%\s+KLD:\s*([\d.]+)",
    "maximum": r"Maximum KLD:\s*([\d.]+)",
    "rms_change_percent": r"RMS Δp\s*:\s*([\d.]+)",
    "same_top_percent": r"Same top p:\s*([\d.]+)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=tuple(STEPS))
    parser.add_argument("reference", type=Path)
    parser.add_argument("candidates", type=Path, nargs="+")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--chunks", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--program", type=Path, default=Path("llama-perplexity"))
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--windows", type=int, nargs="+", default=[5, 20, 40])
    options = parser.parse_args()
    found = STEPS[options.step](options)
    document = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    what = f"{options.reference.name}, {options.text.name}, windows of 512"
    document.setdefault(options.step, {}).update({"what": what, **found})
    document |= {"machine": describe_machine(), "build": build_info()}
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def estimator(options: argparse.Namespace) -> dict[str, Any]:
    compared: dict[str, list[tuple[Compared, Compared]]] = {path.stem: [] for path in options.candidates}
    with ExitStack() as stack:
        models = [stack.enter_context(Model(path)) for path in (options.reference, *options.candidates)]
        windows = plan_windows(models[0], options.text.read_text(encoding="utf-8"), chunks=options.chunks)
        contexts = [stack.enter_context(open_window_context(model, 512, threads=options.threads)) for model in models]
        dtype = reference_dtype(models[0].vocab_size)
        for base, *rows in zip(*(decode_windows(context, windows) for context in contexts), strict=True):
            kept = condense(base, dtype, seed=0, threads=options.threads)
            for name, candidate in zip(compared, rows, strict=True):
                compared[name].append(
                    (
                        compare_with_stored(candidate, kept, options.threads),
                        compare_exactly(candidate, base, options.threads),
                    )
                )
    result: dict[str, Any] = {"bytes_a_token": dtype.itemsize}
    for name, parts in compared.items():
        result[name] = agreement(parts)
    return result


def agreement(parts: list[tuple[Compared, Compared]]) -> dict[str, float]:
    def column(which: int, name: str) -> np.ndarray:
        return np.concatenate([getattr(part[which], name) for part in parts]).astype(np.float64)

    estimate, exact = column(0, "kld"), column(1, "kld")
    sampling = float(exact.std(ddof=1) / np.sqrt(len(exact)))
    error = float(np.sqrt(column(0, "kld_variance").sum()) / len(exact))
    found = {
        "tokens": len(exact),
        "perplexity": float(np.exp(column(1, "nll").mean())),
        "reference_perplexity": float(np.exp(column(1, "reference_nll").mean())),
        "exact_mean": float(exact.mean()),
        "estimated_mean": float(estimate.mean()),
        "bias": float(estimate.mean() / exact.mean() - 1),
        "standard_error_of_estimate": error,
        "sampling_error_of_mean": sampling,
        "error_over_sampling_error": error / sampling,
        "same_top_percent": float(column(1, "same_top").mean() * 100),
    }
    for name, share in (("median", 0.5), ("90%", 0.9), ("99%", 0.99), ("maximum", 1.0)):
        found[f"exact_{name}"], found[f"estimated_{name}"] = (float(np.quantile(v, share)) for v in (exact, estimate))
    return found


def commands(options: argparse.Namespace) -> tuple[list[str], list[str], Path]:
    """llama-perplexity's and our command without the model, with the references they need stored; its base file."""
    base = options.folder / f"{options.reference.stem}-{options.chunks}.kld"
    common = ["-f", str(options.text), "-c", "512", "--chunks", str(options.chunks), "-t", str(options.threads)]
    program = [str(options.program), *common, "--kl-divergence-base", str(base)]
    ours = [sys.executable, "-m", "gguf_eval", "perplexity", "--reference", str(options.reference), "--json"]
    ours += ["--text", str(options.text), "--chunks", str(options.chunks), "--threads", str(options.threads)]
    ours += ["--cache-dir", str(options.folder / "cache")]
    if not base.exists():
        subprocess.run([*program, "-m", str(options.reference)], check=True, capture_output=True)
    subprocess.run([*ours, str(options.reference)], check=True, capture_output=True)
    return [*program, "--kl-divergence", "-m"], ours, base


def native(options: argparse.Namespace) -> dict[str, Any]:
    program, ours, base = commands(options)
    result: dict[str, Any] = {"windows": options.chunks, "base_file_bytes": base.stat().st_size}
    for path in options.candidates:
        done = subprocess.run([*program, str(path)], check=True, capture_output=True, encoding="utf-8")
        text = done.stdout + done.stderr
        figures = {name: float(re.search(pattern, text).group(1)) for name, pattern in PATTERNS.items()}  # type: ignore[union-attr]
        answer = subprocess.run([*ours, str(path)], check=True, capture_output=True, encoding="utf-8")
        found = json.loads(answer.stdout)[-1]
        result[path.stem] = {
            "llama_perplexity": figures,
            "ours": {
                "perplexity": found["perplexity"]["value"],
                "mean": found["divergence"]["mean"]["value"],
                "median": found["divergence"]["quantiles"]["median"]["value"],
                "90%": found["divergence"]["quantiles"]["90%"]["value"],
                "99%": found["divergence"]["quantiles"]["99%"]["value"],
                "maximum": found["divergence"]["maximum"],
                "rms_change_percent": found["divergence"]["change_rms"]["value"] * 100,
                "same_top_percent": found["divergence"]["same_top"]["value"] * 100,
            },
        }
    return result


def timed(options: argparse.Namespace) -> dict[str, Any]:
    program, ours, _ = commands(options)
    result: dict[str, Any] = {}
    for path in options.candidates:
        seconds: dict[str, list[tuple[float, float]]] = {"llama_perplexity": [], "ours": []}
        for _ in range(options.turns):
            for name, command in (("llama_perplexity", program), ("ours", ours)):
                seconds[name].append(timed_command([*command, str(path)]))
        result[f"{path.stem}, {options.chunks} windows"] = {
            "load_average_after": os.getloadavg()[0],
            **{
                f"{name}_{kind}_seconds": [pair[place] for pair in pairs]
                for name, pairs in seconds.items()
                for place, kind in enumerate(("wall", "processor"))
            },
            **{
                f"ratio_of_median_{kind}_seconds": statistics.median(pair[place] for pair in seconds["ours"])
                / statistics.median(pair[place] for pair in seconds["llama_perplexity"])
                for place, kind in enumerate(("wall", "processor"))
            },
        }
    return result


def timed_command(command: list[str]) -> tuple[float, float]:
    """Seconds of the clock, and of the processors with all children's: the latter mean more on a busy machine."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Peak resident bytes, and what is beyond a process that computes the perplexity of one window."""
    text = TextFile(options.text.name, options.text, hashlib.sha256(options.text.read_bytes()).hexdigest())
    reference, candidate = (
        TextModel(path.stem, path, file_sha256(path, cache=options.folder), EngineSettings())
        for path in (options.reference, options.candidates[0])
    )
    log = options.folder / "log"
    request = TextRequest(text, options.folder / "references", chunks=1, threads=options.threads)
    with Model(options.reference) as model:
        window = 512 * model.vocab_size * 4

    def peaks(models: list[TextModel], request: TextRequest, base: TextModel | None) -> list[int]:
        with console_observer() as observer:
            return [record.peak_bytes for _, record in run_texts(models, request, base, observer, log)]

    plain = dict(zip((reference.name, candidate.name), peaks([reference, candidate], request, None), strict=True))
    rows = {}
    for windows in options.windows:
        several = replace(request, chunks=windows)
        stores, compares = peaks([candidate], several, reference)
        rows[windows] = {
            "reference_peak_bytes": stores,
            "candidate_peak_bytes": compares,
            "reference_beyond_plain_over_a_window": (stores - plain[reference.name]) / window,
            "candidate_beyond_plain_over_a_window": (compares - plain[candidate.name]) / window,
        }
    return {"logits_of_a_window_bytes": window, "peak_bytes_plain_one_window": plain, "windows": rows}


STEPS = {"estimator": estimator, "native": native, "time": timed, "memory": memory}

if __name__ == "__main__":
    main()
