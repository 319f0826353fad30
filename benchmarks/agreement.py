"""Compares prompts and log-likelihoods with lm-evaluation-harness's ``hf`` model in float32.

    python benchmarks/agreement.py ORACLE_DIR MODEL.gguf MIRROR_DIR

ORACLE_DIR holds one JSON file a task, as lm-evaluation-harness 0.4.13 gave it for the first rows of the same split on a
checkpoint with the same weights (transformers, float32, CPU): {"task", "samples": [{"doc_id", "arguments": [[context,
continuation], ...], "resps": [[log-likelihood, is_greedy], ...], "target", "tokens"}]}, the last from
`agreement_tokens.py`. MIRROR_DIR is a local copy of the hub's Parquet files. Choices that the two tokenizers split
differently are counted and left out of the differences. The result is written to benchmarks/results/agreement.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from gguf_eval.runtime.bindings import build_info
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.scoring import Request, Scorer, encode_pair
from gguf_eval.tasks.catalog import find_tasks
from gguf_eval.tasks.datasets import mirror, task_rows
from gguf_eval.tasks.metrics import ChoiceScores, picks
from gguf_eval.tasks.prompts import Item, item_renderer

RESULT = Path(__file__).parent / "results" / "agreement.json"


def main() -> None:
    oracle_folder, model_path, mirror_folder = (Path(argument) for argument in sys.argv[1:4])
    tasks = {}
    everything: list[float] = []
    with Model(model_path) as model:
        for path in sorted(oracle_folder.glob("*.json")):
            oracle = json.loads(path.read_text())
            result, differences = compare_task(oracle, model, mirror_folder)
            tasks[oracle["task"]] = result
            everything.extend(differences)
            print(oracle["task"], json.dumps(result))
    values = np.array(everything)
    overall = {
        "choices": len(values),
        "median_nats": float(np.median(values)),
        "p99_nats": float(np.quantile(values, 0.99)),
        "maximum_nats": float(values.max()),
        "over_0.05_nats": int((values > 0.05).sum()),
        "choices_tokenized_differently": sum(t["choices_tokenized_differently"] for t in tasks.values()),
        "items": sum(t["items"] for t in tasks.values()),
        "same_answers": sum(t["same_answers"] for t in tasks.values()),
        "prompts_equal": all(t["prompts_equal"] == t["items"] for t in tasks.values()),
    }
    print(json.dumps(overall, indent=1))
    document = {
        "what": "F16 GGUF through gguf-eval against transformers in float32, through lm-evaluation-harness 0.4.13",
        "model": model_path.name,
        "build": build_info(),
        "overall": overall,
        "tasks": tasks,
    }
    RESULT.write_text(json.dumps(document, indent=1) + "\n")


def compare_task(oracle: dict, model: Model, mirror_folder: Path) -> tuple[dict, list[float]]:
    """Prompts, log-likelihoods and answers of one task; also the absolute differences in nats."""
    [task] = find_tasks([oracle["task"]])
    rows = task_rows(task, fetch=mirror(mirror_folder))
    render = item_renderer(task)
    samples = sorted(oracle["samples"], key=lambda sample: sample["doc_id"])
    items = [render(rows[sample["doc_id"]], ()) for sample in samples]
    scores = iter(Scorer(model).score([Request(*item.pair(i)) for item in items for i in range(len(item.choices))]))
    equal = same = ours_right = theirs_right = split_differently = 0
    differences: list[float] = []
    for item, sample in zip(items, samples, strict=True):
        pairs = [tuple(pair) for pair in sample["arguments"]]
        equal += pairs == [item.pair(i) for i in range(len(item.choices))]
        parts = [next(scores) for _ in item.choices]
        theirs = [float(response[0]) for response in sample["resps"]]
        ours = [part.logprob for part in parts]
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            context, continuation = encode_pair(model, *item.pair(index))
            if context + continuation == sample["tokens"][index]:
                differences.append(abs(a - b))
            else:
                split_differently += 1
        tokens = [len(part.token_logprobs) for part in parts]
        mine = answer(task.metric, item, ours, tokens)
        other = answer(task.metric, item, theirs, tokens)
        same += mine == other
        ours_right += mine == item.gold
        theirs_right += other == item.gold
    result = {
        "items": len(items),
        "prompts_equal": equal,
        "same_answers": same,
        "metric": task.metric,
        "right": ours_right,
        "right_reference": theirs_right,
        "median_nats": float(np.median(differences)),
        "maximum_nats": max(differences),
        "choices_tokenized_differently": split_differently,
    }
    return result, differences


def answer(metric: str, item: Item, logprobs: list[float], tokens: list[int]) -> int:
    scores = ChoiceScores(tuple(logprobs), tuple(tokens), tuple(len(choice) for choice in item.choices))
    return picks(scores)[metric]


if __name__ == "__main__":
    main()
