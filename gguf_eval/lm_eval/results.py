"""Reads what the harness wrote: its tasks, their items and this model's outcomes, in the words of a study."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf_eval.runtime.rows import NOT_FINITE
from gguf_eval.store.records import Outcome, TaskRecord
from gguf_eval.store.rows import canonical_json
from gguf_eval.tasks.prompts import Item, make_item
from gguf_eval.tasks.spec import Kind

GROUP = "lm-evaluation-harness"
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True)
class HarnessTask:
    """One task as the harness ran it."""

    task: TaskRecord
    items: tuple[Item, ...]
    """None where no metric of the task is a score from 0 to 1 (perplexities)."""
    outcomes: tuple[Outcome, ...]
    figures: dict[str, tuple[float, float | None]]
    """The harness's own figures: (value, standard error where it gives one) by ``metric,filter``."""


def read_results(results: Path, samples: Mapping[str, Path]) -> list[HarnessTask]:
    """Everything the harness wrote of one run."""
    document = json.loads(results.read_text(encoding="utf-8"))
    tasks = []
    for name, path in sorted(samples.items()):
        lines = path.read_text(encoding="utf-8").splitlines()
        tasks.append(read_task(name, document, [json.loads(line) for line in lines if line]))
    return tasks


def read_task(name: str, document: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> HarnessTask:
    """One task: ``document`` is the results file, a sample what one filter made of one item."""
    by_item: dict[int, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_item.setdefault(sample["doc_id"], []).append(sample)
    scores = [_scores(group) for group in by_item.values()]
    metrics = tuple(metric for metric in scores[0] if all(_is_score(s.get(metric)) for s in scores)) if scores else ()
    kind: Kind = _kind(samples[0]) if samples else "generation"
    task = _task(name, document, kind, metrics)
    figures = _figures(document["results"][name])
    if not metrics:
        return HarnessTask(task, (), (), figures)
    items = tuple(_item(group[0], kind) for group in by_item.values())
    outcomes = tuple(
        _outcome(item, group, {metric: float(score[metric]) for metric in metrics}, task.metric)
        for item, group, score in zip(items, by_item.values(), scores, strict=True)
    )
    return HarnessTask(task, items, outcomes, figures)


def _task(name: str, document: Mapping[str, Any], kind: Kind, metrics: tuple[str, ...]) -> TaskRecord:
    config = {key: value for key, value in document["configs"][name].items() if key != "metadata"}
    settings = {
        key: document.get(key) for key in ("chat_template_sha", "system_instruction_sha", "fewshot_as_multiturn")
    }
    version = document["versions"].get(name)
    definition = canonical_json({"harness": name, "version": version, "config": config, **settings})
    chat = ", chat" if document.get("chat_template_sha") else ""
    return TaskRecord(
        hash=hashlib.sha256(_ADDRESS.sub("", definition).encode()).hexdigest(),
        name=f"{name} (lm-eval{chat})",
        title=str(document["results"][name].get("alias", name)).strip(" -"),
        group=GROUP,
        version=int(version) if isinstance(version, int | float) else 0,
        metric=metrics[0] if metrics else "",
        metrics=metrics,
        items={},
        kind=kind,
    )


def _arguments(sample: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """What each request was asked: (context, continuation), (context, settings) or (text,)."""
    return [tuple(request.values()) for request in sample["arguments"].values()]


def _kind(sample: Mapping[str, Any]) -> Kind:
    requests = _arguments(sample)
    if len(requests[0]) > 1 and not isinstance(requests[0][1], str):
        return "generation"
    return "choice" if len(requests) > 1 else "continuation"


def _scores(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every metric of one item, named as in the harness's table; the filter stands in the name where it has one."""
    scores = {}
    for sample in group:
        suffix = "" if sample["filter"] == "none" else f",{sample['filter']}"
        scores.update({f"{metric}{suffix}": sample.get(metric) for metric in sample["metrics"]})
    return scores


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _figures(results: Mapping[str, Any]) -> dict[str, tuple[float, float | None]]:
    figures: dict[str, tuple[float, float | None]] = {}
    for key, value in results.items():
        metric, _, filter_name = key.partition(",")
        if filter_name and not metric.endswith("_stderr") and isinstance(value, int | float):
            error = results.get(f"{metric}_stderr,{filter_name}")
            figures[key] = (float(value), float(error) if isinstance(error, int | float) else None)
    return figures


def _item(sample: Mapping[str, Any], kind: str) -> Item:
    requests = _arguments(sample)
    contexts = tuple(dict.fromkeys(str(request[0]) for request in requests))
    target = str(sample["target"])
    if kind == "generation":
        return make_item(str(sample["doc_id"]), contexts, (), (), "", references=(target,))
    choices = tuple(str(request[-1]) for request in requests)
    if len(contexts) > 1:
        contexts = tuple(str(request[0]) for request in requests)
    gold = int(target) if target.isdigit() and int(target) < len(choices) else 0
    return make_item(str(sample["doc_id"]), contexts, choices, (gold,), "")


def _outcome(item: Item, group: Sequence[Mapping[str, Any]], metrics: dict[str, float], metric: str) -> Outcome:
    responses = [response[0] for response in group[0]["resps"]]
    if not item.choices:
        filtered = group[0]["filtered_resps"]
        extracted = None if group[0]["filter"] == "none" or not filtered else str(filtered[0])
        return Outcome(item.hash, metrics[metric], None, metrics, (), (), text=str(responses[0]), extracted=extracted)
    logprobs = tuple(float(response[0] if isinstance(response, list) else response) for response in responses)
    if not all(math.isfinite(value) for value in logprobs):
        return Outcome(item.hash, None, None, {}, (), (), unscored_reason=NOT_FINITE)
    return Outcome(item.hash, metrics[metric], _pick(item, logprobs, metric), metrics, logprobs, ())


def _pick(item: Item, logprobs: Sequence[float], metric: str) -> int | None:
    """The choice the headline metric picks, where it is one of the harness's two; None elsewhere."""
    if len(logprobs) < 2 or metric not in ("acc", "acc_norm"):
        return None
    lengths = [len(choice.removeprefix(" ")) if metric == "acc_norm" else 1 for choice in item.choices]
    return max(range(len(logprobs)), key=lambda i: logprobs[i] / max(1, lengths[i]))
