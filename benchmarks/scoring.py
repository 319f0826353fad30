"""Times the scorer on HellaSwag against llama-perplexity --hellaswag and against llama_decode's own ceiling.

    python benchmarks/scoring.py MODEL.gguf MIRROR_DIR LLAMA_PERPLEXITY [--items 200] [--rounds 3] [--threads 2]

MIRROR_DIR is a local copy of the hub's Parquet files; LLAMA_PERPLEXITY the program of the same llama.cpp version. All
three are timed in turn, several rounds, and medians are compared; model loading is in none of the times. The ceiling is
single-sequence batches of 512 tokens on an empty cache that ask for the same share of logits rows as the scorer did.
The result is written to benchmarks/results/scoring.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from gguf_eval.llama.library import build_info
from gguf_eval.machine import describe_machine
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.scoring import Request, Scorer
from gguf_eval.runtime.settings import ContextSettings
from gguf_eval.tasks.catalog import find_tasks
from gguf_eval.tasks.datasets import load_items, mirror
from gguf_eval.tasks.prompts import Item

RESULT = Path(__file__).parent / "results" / "scoring.json"
PERPLEXITY_BATCHES = ((512, 512), (2048, 512), (1024, 1024))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("mirror", type=Path)
    parser.add_argument("perplexity", type=Path)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    [task] = find_tasks(["hellaswag"])
    items = load_items(task, fetch=mirror(options.mirror), limit=options.items)
    ours, ceilings = [], []
    native: dict[tuple[int, int], list[float]] = {batch: [] for batch in PERPLEXITY_BATCHES}
    with tempfile.TemporaryDirectory() as folder, Model(options.model) as model:
        data = Path(folder) / "hellaswag.txt"
        write_hellaswag(items, data)
        for number in range(options.rounds):
            ours.append(time_scorer(model, items, options.threads))
            share = ours[-1]["output_rows"] / ours[-1]["unique_tokens"]
            ceilings.append(time_ceiling(model, share, options.threads))
            for batch, seconds in native.items():
                seconds.append(time_perplexity(options, data, len(items), batch))
            print(f"round {number + 1}: {ours[-1]} ceiling {ceilings[-1]:.1f} tokens/s native {native}", flush=True)
    document = summarise(options, ours, ceilings, native)
    print(json.dumps(document, indent=1))
    RESULT.write_text(json.dumps(document, indent=1) + "\n")


def write_hellaswag(items: list[Item], path: Path) -> None:
    """The six-line form llama-perplexity reads: context, index of the right ending, four endings."""
    lines = []
    for item in items:
        lines += [item.contexts[0], str(item.gold), *item.choices]
    path.write_text("\n".join(line.replace("\n", " ") for line in lines) + "\n", encoding="utf-8")


def time_scorer(model: Model, items: list[Item], threads: int) -> dict[str, float]:
    requests = [Request(*item.pair(i)) for item in items for i in range(len(item.choices))]
    scorer = Scorer(model, threads=threads)
    began = time.perf_counter()
    scorer.score(requests)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "items_per_second": len(items) / seconds,
        "unique_tokens": scorer.stats.unique_tokens,
        "output_rows": scorer.stats.output_rows,
        "unique_tokens_per_second": scorer.stats.unique_tokens / seconds,
        "outside_decode": 1 - scorer.stats.decode_seconds / seconds,
    }


def time_ceiling(model: Model, share: float, threads: int, *, batches: int = 16, size: int = 512) -> float:
    """Tokens a second of plain llama_decode: one sequence a batch, ``share`` of the rows asked for."""
    random = np.random.default_rng(0)
    outputs = (np.arange(size) * share % 1 < share).astype(np.int8)
    positions = np.arange(size, dtype=np.int32)
    settings = ContextSettings(n_ctx=size, batch_size=size, ubatch_size=size, threads=threads)
    with model.open_context(settings) as context:
        seconds = 0.0
        for number in range(batches + 1):
            tokens = random.integers(0, model.vocab_size, size, dtype=np.int32)
            context.clear()
            began = time.perf_counter()
            context.decode(tokens, positions, [(0,)] * size, outputs)
            seconds += time.perf_counter() - began if number else 0.0  # the first warms up
    return batches * size / seconds


def time_perplexity(options: argparse.Namespace, data: Path, count: int, batch: tuple[int, int]) -> float:
    """Seconds from the line that says the tasks are read (the model is loaded by then) to the program's end."""
    command = [str(options.perplexity), "-m", str(options.model), "-f", str(data), "--hellaswag"]
    command += ["--hellaswag-tasks", str(count), "-t", str(options.threads), "-b", str(batch[0]), "-ub", str(batch[1])]
    began = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "hellaswag_score : loaded" in line:
                began = time.perf_counter()
    if process.returncode or began is None:
        raise RuntimeError(f"llama-perplexity failed with exit code {process.returncode}")
    return time.perf_counter() - began


def summarise(
    options: argparse.Namespace,
    ours: list[dict[str, float]],
    ceilings: list[float],
    native: dict[tuple[int, int], list[float]],
) -> dict[str, object]:
    median = {key: statistics.median(run[key] for run in ours) for key in ours[0]}
    best = min((statistics.median(seconds), batch) for batch, seconds in native.items())
    ceiling = statistics.median(ceilings)
    return {
        "what": f"HellaSwag, {options.items} items, {options.model.name}, {options.threads} threads",
        "ratios": {
            "items_per_second_over_llama_perplexity": median["items_per_second"] * best[0] / options.items,
            "unique_tokens_per_second_over_llama_decode": median["unique_tokens_per_second"] / ceiling,
            "share_of_time_outside_llama_decode": median["outside_decode"],
        },
        "ours": median,
        "llama_decode_tokens_per_second": ceiling,
        "llama_perplexity_seconds": {f"-b {b} -ub {u}": s for (b, u), s in native.items()},
        "rounds": ours,
        "machine": describe_machine(),
        "build": build_info(),
    }


if __name__ == "__main__":
    main()
