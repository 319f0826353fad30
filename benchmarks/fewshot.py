"""Times a 5-shot task with the header that its items share decoded once, and with that switched off.

    python benchmarks/fewshot.py MODEL.gguf HUB [--subject philosophy] [--items 40] [--rounds 2]

HUB is a folder of the hub's Parquet files. The task is one subject of MMLU, whose items share five examples. Switched
off, each item is decoded from its first token on, in batches of the same size; its own four choices share their prompt
all the same, so that what is left is what the header gains. Both ways are timed in turn, and their answers compared:
the sums of attention are added in another order, which 8-bit weights (their activations are rounded to 8 bits) make
visible in near ties and F32 weights do not. Results are written to benchmarks/results/fewshot.json, one entry a model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gguf_eval.llama.library import build_info
from gguf_eval.machine import describe_machine
from gguf_eval.runtime import scoring
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.prefix import Tokens, Trie, build_trie
from gguf_eval.runtime.scoring import Request, Scorer
from gguf_eval.tasks.catalog import find_tasks
from gguf_eval.tasks.datasets import load_items, mirror
from gguf_eval.tasks.prompts import Item

RESULT = Path(__file__).parent / "results" / "fewshot.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("hub", type=Path)
    parser.add_argument("--subject", default="philosophy")
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    [task] = find_tasks(["mmlu"])
    task = replace(task, dataset=replace(task.dataset, configs=(options.subject,)))
    items = load_items(task, fetch=mirror(options.hub), limit=options.items)
    runs: dict[str, list[dict[str, Any]]] = {"shared": [], "not shared": []}
    with Model(options.model) as model:
        for _ in range(options.rounds):
            runs["shared"].append(ask(model, items))
            with header_not_shared(items):
                runs["not shared"].append(ask(model, items))
            print({way: round(found[-1]["seconds"], 2) for way, found in runs.items()}, flush=True)
    document = summarise(options, items, runs)
    print(json.dumps(document, indent=1))
    known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    known[options.model.name] = document
    RESULT.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def ask(model: Model, items: list[Item]) -> dict[str, Any]:
    """Seconds and tokens it took, and the (items, choices) log-likelihoods."""
    scorer = Scorer(model)
    requests = [Request(*item.pair(i)) for item in items for i in range(len(item.choices))]
    began = time.perf_counter()
    scores = scorer.score(requests)
    seconds = time.perf_counter() - began
    logprobs = np.array([score.logprob for score in scores]).reshape(len(items), -1)
    return {"seconds": seconds, "decoded_tokens": scorer.stats.unique_tokens, "logprobs": logprobs}


@contextmanager
def header_not_shared(items: Sequence[Item]) -> Iterator[None]:
    """Let the scorer share prefixes among an item's choices alone."""
    counts = [len(item.choices) for item in items]
    shared: Callable[..., Any] = scoring.build_trie
    scoring.build_trie = lambda sequences: separate_tries(sequences, counts)  # type: ignore[assignment]
    try:
        yield
    finally:
        scoring.build_trie = shared


def separate_tries(sequences: Sequence[Tokens], counts: Sequence[int]) -> tuple[Trie, list[Tokens]]:
    """One trie for each ``counts`` sequences, put one after another."""
    tries, paths = [], []
    first, size = 0, 0
    for count in counts:
        trie, own_paths = build_trie(sequences[first : first + count])
        tries.append(replace(trie, leaf_start=trie.leaf_start + size))
        paths += [path + size for path in own_paths]
        first, size = first + count, size + trie.size
    columns = ("tokens", "positions", "leaf_start", "leaf_length", "leaf_shared")
    return Trie(*(np.concatenate([getattr(trie, column) for trie in tries]) for column in columns)), paths


def summarise(options: argparse.Namespace, items: list[Item], runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    shared, apart = (runs[way][0]["logprobs"] for way in ("shared", "not shared"))
    golds = np.array([item.gold for item in items])
    seconds = {way: [round(run["seconds"], 2) for run in found] for way, found in runs.items()}
    return {
        "what": f"MMLU {options.subject}, 5-shot, {len(items)} items",
        "build": build_info(),
        "machine": describe_machine(),
        "seconds": seconds,
        "decoded_tokens": {way: found[0]["decoded_tokens"] for way, found in runs.items()},
        "times_as_fast": round(statistics.median(seconds["not shared"]) / statistics.median(seconds["shared"]), 2),
        "right": [int((logprobs.argmax(axis=1) == golds).sum()) for logprobs in (shared, apart)],
        "same_answers": int((shared.argmax(axis=1) == apart.argmax(axis=1)).sum()),
        "largest_difference_nats": round(float(np.abs(shared - apart).max()), 5),
    }


if __name__ == "__main__":
    main()
