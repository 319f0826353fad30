"""Compares the KL divergence on right answers with the whole sum, computed slowly, and says what it costs.

    python benchmarks/answer_divergence.py check REFERENCE.gguf CANDIDATE.gguf... --tasks hellaswag,arc_easy --limit 50
    python benchmarks/answer_divergence.py cost REFERENCE.gguf CANDIDATE.gguf... --tasks hellaswag --limit 100

`check` runs `gguf-eval run` over the files, then decodes every item's right answer again with llama-cpp-python's Llama
class, one sequence at a time, and sums p ln(p / q) over the whole vocabulary in float64: `against_other_decodes`. Two
decodes of a quantized model differ by rounding; `decodes_of_other_batches` is that difference, of the same slow way with
batches of 7 tokens. `on_the_same_logits` has none of it: estimate and whole sum over the rows of one decode. `cost`
scores the items with and without the divergence in turn, in one process, and gives the ratios of the clock's and of the
processors' seconds: the latter mean more on a busy machine. Each writes its part of
benchmarks/results/answer_divergence.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from gguf_eval.files.hub_datasets import dataset_files
from gguf_eval.llama.library import build_info
from gguf_eval.machine import describe_machine
from gguf_eval.runtime.answer_file import AnswerFile, AnswerKey, answer_path
from gguf_eval.runtime.answers import ComparedAnswers, KeptAnswers
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.rows import Rows
from gguf_eval.runtime.scoring import Request, Scorer, encode_pair
from gguf_eval.store.read import read_study
from gguf_eval.tasks.catalog import find_tasks
from gguf_eval.tasks.datasets import load_items, mirror
from gguf_eval.tasks.prompts import Item

RESULT = Path(__file__).parent / "results" / "answer_divergence.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("check", "cost"))
    parser.add_argument("reference", type=Path)
    parser.add_argument("candidates", type=Path, nargs="+")
    parser.add_argument("--tasks", default="hellaswag")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mirror", type=Path)
    options = parser.parse_args()
    found = check(options) if options.step == "check" else cost(options)
    document = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    document.setdefault(options.step, {}).update(found)
    document |= {"machine": describe_machine(), "build": build_info()}
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def items_of(options: argparse.Namespace) -> dict[str, list[Item]]:
    fetch = mirror(options.mirror) if options.mirror else dataset_files
    tasks = find_tasks(options.tasks.split(","))
    return {task.name: load_items(task, fetch=fetch, limit=options.limit, seed=0) for task in tasks}


def check(options: argparse.Namespace) -> dict[str, Any]:
    items = items_of(options)
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study.sqlite"
        command = [sys.executable, "-m", "gguf_eval", "run", str(options.reference), *map(str, options.candidates)]
        command += ["-t", options.tasks, "-n", str(options.limit), "--no-speed", "--study", str(study), "--json"]
        command += ["--cache-dir", folder, *(["--mirror", str(options.mirror)] if options.mirror else [])]
        subprocess.run(command, check=True, capture_output=True)
        record = read_study(study)
    stored = {
        (Path(point.path).name, record_task.name): dict(zip(one.items, one.kld, strict=True))
        for point in record.points
        for record_task in record.tasks
        for one in point.divergences.get(record_task.hash, ())
    }
    result: dict[str, Any] = {}
    for path in options.candidates:
        exact: dict[str, dict[str, float]] = {task: {} for task in items}
        other_batches: dict[str, dict[str, float | None]] = {task: {} for task in items}
        decodes = [
            distributions(model, items, options.threads, batch)
            for model, batch in ((options.reference, 512), (path, 512), (path, 7))
        ]
        for (task, item, base), (_, _, other), (_, _, again) in zip(*decodes, strict=True):
            exact[task][item] = float(divergence(base, other).mean())
            other_batches[task][item] = float(divergence(base, again).mean())
        for task, members in items.items():
            result[f"{task}, {path.stem}"] = {
                "against_other_decodes": agreement(stored[path.name, task], exact[task]),
                "decodes_of_other_batches": agreement(other_batches[task], exact[task]),
                "on_the_same_logits": agreement(*on_the_same_logits(options, path, members)),
            }
    return result


def distributions(
    path: Path, items: dict[str, list[Item]], threads: int, batch: int
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Of every item (task, item hash, log-probabilities of its right answer's rows), decoded alone."""
    llama = llama_cpp.Llama(
        str(path), n_ctx=1024, n_batch=batch, logits_all=True, flash_attn=True, n_threads=threads, verbose=False
    )
    with Model(path) as tokenizer:
        for task, members in items.items():
            for item in members:
                context, answer = encode_pair(tokenizer, *item.pair(item.gold))
                llama.reset()
                llama.eval((context + answer)[:-1])
                yield task, item.hash, log_softmax(llama.scores[len(context) - 1 : len(context) + len(answer) - 1])


class Whole:
    """Takes whole rows, and hands them on."""

    def __init__(self, consumer: KeptAnswers | ComparedAnswers) -> None:
        self.consumer = consumer
        self.rows: dict[int, dict[int, np.ndarray]] = {request: {} for request in consumer.wanted}

    def begin(self, request: int, inputs: np.ndarray, targets: np.ndarray) -> bool:
        """As the consumer says."""
        return self.consumer.begin(request, inputs, targets)

    def take(self, requests: Sequence[int], places: Sequence[int], rows: Rows) -> None:
        """Keep the rows beside what the consumer does with them."""
        for request, place, row in zip(requests, places, rows.logits, strict=True):
            self.rows[request][place] = row.copy()
        self.consumer.take(requests, places, rows)


def on_the_same_logits(
    options: argparse.Namespace, candidate: Path, items: list[Item]
) -> tuple[dict[str, float | None], dict[str, float]]:
    """The estimate and the whole sum of every item, over the rows of one decode of each model."""
    requests = [Request(*item.pair(item.gold)) for item in items]
    wanted = {number: item.hash for number, item in enumerate(items)}
    key = AnswerKey("0" * 64, {}, "task")
    estimated: dict[str, float | None] = {}
    whole = []
    with tempfile.TemporaryDirectory() as folder, AnswerFile(Path(folder) / "answers") as file:
        for path, kind in ((options.reference, KeptAnswers), (candidate, ComparedAnswers)):
            with Model(path) as model:
                consumer = Whole(kind(file, key, wanted, model.vocab_size, options.threads))
                for done in Scorer(model, threads=options.threads).stream(requests, consumer):
                    for request in done:
                        found = consumer.consumer.finish(request)
                        if found is not None:
                            estimated[wanted[request]] = found.kld
                whole.append([log_softmax(np.array([r[p] for p in sorted(r)])) for r in consumer.rows.values()])
    exact = {item.hash: float(divergence(*pair).mean()) for item, *pair in zip(items, *whole, strict=True)}
    return estimated, exact


def log_softmax(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


def divergence(base: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (np.exp(base) * (base - other)).sum(axis=1)


def agreement(stored: dict[str, float | None], exact: dict[str, float]) -> dict[str, float]:
    ours, theirs = (np.array([values[item] for item in exact], np.float64) for values in (stored, exact))
    return {
        "items": len(exact),
        "stored_mean": float(ours.mean()),
        "exact_mean": float(theirs.mean()),
        "relative_difference_of_mean": float(ours.mean() / theirs.mean() - 1),
        "median_relative_difference_of_an_item": float(np.median(np.abs(ours / theirs - 1))),
        "largest_difference_of_an_item": float(np.abs(ours - theirs).max()),
        "correlation": float(np.corrcoef(ours, theirs)[0, 1]),
        "sampling_error_of_mean": float(theirs.std(ddof=1) / np.sqrt(len(theirs))),
    }


def cost(options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for task, items in items_of(options).items():
            requests = [Request(*item.pair(i)) for item in items for i in range(len(item.choices))]
            right, number = {}, 0
            for item in items:
                right[number + item.gold] = item.hash
                number += len(item.choices)
            key = AnswerKey("0" * 64, {}, task)
            path = answer_path(Path(folder), key)
            for model_path in (options.reference, *options.candidates):
                kind = KeptAnswers if model_path == options.reference else ComparedAnswers
                with Model(model_path) as model, AnswerFile(path) as file:
                    scorer = Scorer(model, threads=options.threads)
                    seconds: dict[str, list[tuple[float, float]]] = {"without": [], "with": []}
                    for _ in range(options.turns):
                        for name, times in seconds.items():
                            consumer = kind(file, key, right, model.vocab_size, options.threads)
                            began, before = time.perf_counter(), time.process_time()
                            for done in scorer.stream(requests, consumer if name == "with" else None):
                                for request in done.keys() & right.keys() if name == "with" else ():
                                    consumer.finish(request)
                            times.append((time.perf_counter() - began, time.process_time() - before))
                found = {"items": len(items), "role": "reference" if kind is KeptAnswers else "candidate"}
                for place, clock in enumerate(("wall", "processor")):
                    spent = {name: [pair[place] for pair in times] for name, times in seconds.items()}
                    found[f"{clock}_seconds"] = spent
                    found[f"{clock}_ratio_of_medians"] = statistics.median(spent["with"]) / statistics.median(
                        spent["without"]
                    )
                result[f"{task}, {model_path.stem}"] = found
            result[f"{task}, file"] = {"bytes": path.stat().st_size, "items": len(items)}
    return result


if __name__ == "__main__":
    main()
