"""Compares prompts, log-likelihoods and scores with lm-evaluation-harness's ``hf`` model in float32.

    python benchmarks/agreement_oracle.py PROMPTS_DIR HUB TASK ...                            (another environment:
    python benchmarks/agreement_oracle.py SCORES_DIR HUB --checkpoint CHECKPOINT TASK:N ...    see that file)
    python benchmarks/agreement.py MODEL.gguf HUB --prompts PROMPTS_DIR --scores SCORES_DIR

MODEL.gguf holds the weights of CHECKPOINT; HUB is a folder of the hub's Parquet files. Prompts are compared character
for character. Choices that the two tokenizers split differently are counted and left out of the differences in nats.
Tasks without a training split in HUB take their few-shot examples from the second half of the rows, on both sides. The
result is written to benchmarks/results/agreement.json.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

from gguf_eval.errors import TaskError
from gguf_eval.llama.library import build_info
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.scoring import Request, Score, Scorer, encode_pair
from gguf_eval.tasks.catalog import find_tasks
from gguf_eval.tasks.datasets import Fetch, load_items, mirror
from gguf_eval.tasks.metrics import ChoiceScores, values
from gguf_eval.tasks.prompts import Item
from gguf_eval.tasks.spec import Task

RESULT = Path(__file__).parent / "results" / "agreement.json"
OURS = {"lambada_openai": "lambada", "sglue_rte": "rte"}
"""Tasks that the harness calls otherwise; its ``mmlu_SUBJECT`` are one task here."""
THEIR_METRIC = {"mc2": "acc"}
"""Metrics that the harness calls otherwise."""


@dataclass
class Tally:
    """What was compared of one task."""

    items: int = 0
    judged_differently: dict[str, int] = field(default_factory=dict)
    """Items whose value is another by each metric of 0 or 1."""
    ours: dict[str, list[float]] = field(default_factory=dict)
    theirs: dict[str, list[float]] = field(default_factory=dict)
    nats: list[float] = field(default_factory=list)
    """Absolute differences of log-likelihoods."""
    tokenized_differently: int = 0

    def document(self) -> dict[str, Any]:
        """As it stands in the result."""
        figures = {name: [figure(name, self.ours[name]), figure(name, self.theirs[name])] for name in sorted(self.ours)}
        return {
            "items": self.items,
            "ours_and_theirs": figures,
            "items_judged_differently": self.judged_differently,
            **nats(self.nats),
            "choices_tokenized_differently": self.tokenized_differently,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("hub", type=Path)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Model(options.model) as model:
        fetch = with_training_rows(mirror(options.hub), Path(folder))
        prompts = compare_prompts(options.prompts, fetch)
        tallies = compare_scores(options.scores, fetch, model)
    differences = [difference for tally in tallies.values() for difference in tally.nats]
    document = {
        "what": "F16 GGUF through gguf-eval against lm-evaluation-harness 0.4.13 and its hf model in float32",
        "model": options.model.name,
        "build": build_info(),
        "prompts": {name: {"items": len(equal), "equal": sum(equal)} for name, equal in prompts.items()},
        "scores": {
            "items": sum(tally.items for tally in tallies.values()),
            "most_items_judged_differently_in_200": max(
                200 * count / tally.items for tally in tallies.values() for count in tally.judged_differently.values()
            ),
            **nats(differences),
            "over_0.05_nats": sum(difference > 0.05 for difference in differences),
            "choices": len(differences),
            "choices_tokenized_differently": sum(tally.tokenized_differently for tally in tallies.values()),
            "tasks": {name: tally.document() for name, tally in tallies.items()},
        },
    }
    print(json.dumps(document, indent=1))
    RESULT.write_text(json.dumps(document, indent=1) + "\n")


def compare_prompts(folder: Path, fetch: Fetch) -> dict[str, list[bool]]:
    """For each of our tasks, which items of the oracle's are the same character for character."""
    equal: dict[str, list[bool]] = {}
    for path in sorted(folder.glob("*.json")):
        oracle = json.loads(path.read_text(encoding="utf-8"))
        task, items = our_items(oracle, fetch)
        for item, sample in zip(items, oracle["samples"], strict=True):
            equal.setdefault(task.name, []).append(pairs(item) == [tuple(pair) for pair in sample["arguments"]])
            if not equal[task.name][-1]:
                print(f"{oracle['task']} {sample['doc_id']}:\n{sample['arguments'][0]}\n{pairs(item)[0]}")
    return equal


def compare_scores(folder: Path, fetch: Fetch, model: Model) -> dict[str, Tally]:
    tallies: dict[str, Tally] = {}
    for path in sorted(folder.glob("*.json")):
        oracle = json.loads(path.read_text(encoding="utf-8"))
        task, items = our_items(oracle, fetch)
        tally = tallies.setdefault(task.name, Tally())
        scores = iter(Scorer(model).score([Request(*pair) for item in items for pair in pairs(item)]))
        for item, sample in zip(items, oracle["samples"], strict=True):
            compare_item(task, item, [next(scores) for _ in item.choices], sample, model, tally)
        print(task.name, oracle["task"], json.dumps(tally.document()), flush=True)
    return tallies


def compare_item(
    task: Task, item: Item, scores: Sequence[Score], sample: dict[str, Any], model: Model, tally: Tally
) -> None:
    tally.items += 1
    for pair, score, (logprob, _), tokens in zip(pairs(item), scores, sample["resps"], sample["tokens"], strict=True):
        context, continuation = encode_pair(model, *pair)
        if context + continuation == tokens:
            tally.nats.append(abs(score.logprob - float(logprob)))
        else:
            tally.tokenized_differently += 1
    ours = our_values(task, item, scores)
    for name in ours:
        theirs = sample["metrics"].get(THEIR_METRIC.get(name, name))
        if theirs is None:
            continue
        tally.ours.setdefault(name, []).append(ours[name])
        tally.theirs.setdefault(name, []).append(float(theirs))
        if name in ("acc", "acc_norm"):
            differs = ours[name] != float(theirs)
            tally.judged_differently[name] = tally.judged_differently.get(name, 0) + differs


def our_values(task: Task, item: Item, scores: Sequence[Score]) -> dict[str, float]:
    """The item's value by each of the task's metrics; for a perplexity its log-likelihood, as the harness has it."""
    if task.kind == "continuation":
        return {"acc": float(scores[0].greedy), "perplexity": scores[0].logprob}
    parts = ChoiceScores(
        tuple(score.logprob for score in scores),
        tuple(len(score.token_logprobs) for score in scores),
        tuple(len(choice) for choice in item.choices),
    )
    found = values(parts, item.golds)
    return {name: found[name] for name in task.metrics}


def our_items(oracle: dict[str, Any], fetch: Fetch) -> tuple[Task, list[Item]]:
    """Our task for a file of the oracle's, and the items in the order of its samples."""
    name = oracle["task"]
    subject = name.removeprefix("mmlu_") if name.startswith("mmlu_") else None
    [task] = find_tasks(["mmlu" if subject else OURS.get(name, name)])
    if subject:
        task = replace(task, dataset=replace(task.dataset, configs=(subject,)))
    items = load_items(task, fetch=fetch)
    return task, [items[sample["doc_id"]] for sample in oracle["samples"]]


def pairs(item: Item) -> list[tuple[str, ...]]:
    """Context and continuation of every choice; the prompt alone where the model writes."""
    return [item.pair(i) for i in range(len(item.choices))] or [(item.context(),)]


def with_training_rows(fetch: Fetch, folder: Path) -> Fetch:
    """The same with the second half of a split's rows as the training split, where there is none."""

    def get(repo: str, config: str, split: str) -> Sequence[Path]:
        try:
            return fetch(repo, config, split)
        except TaskError:
            if split != "train":
                raise
        table = pyarrow.concat_tables([pyarrow.parquet.read_table(path) for path in fetch(repo, config, "test")])
        path = folder / f"{repo.replace('/', '-')}.parquet"
        pyarrow.parquet.write_table(table.slice(len(table) // 2), path)
        return [path]

    return get


def figure(name: str, numbers: Sequence[float]) -> float:
    """A task's figure: the mean of its items, or what their log-likelihoods make of it."""
    mean = sum(numbers) / len(numbers)
    return math.exp(-mean) if name == "perplexity" else round(mean, 6)


def nats(differences: Sequence[float]) -> dict[str, float]:
    array = np.array(differences)
    return {
        "median_nats": round(float(np.median(array)), 4),
        "p99_nats": round(float(np.quantile(array, 0.99)), 4),
        "largest_nats": round(float(array.max()), 4),
    }


if __name__ == "__main__":
    main()
