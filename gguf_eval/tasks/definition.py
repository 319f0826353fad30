"""Decodes a parsed task file, and checks what its keys say together; what is wrong is an error that names the key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gguf_eval.decoding import DecodingError, check_known, decode
from gguf_eval.errors import TaskError
from gguf_eval.tasks.aggregates import AGGREGATES
from gguf_eval.tasks.answers import JUDGES, judge_options
from gguf_eval.tasks.generators.catalog import GENERATORS
from gguf_eval.tasks.metrics import CHOICE_METRICS, CONTINUATION_METRICS
from gguf_eval.tasks.spec import COLUMN_KINDS, Generation, Judging, Task, definition_hash

_OF_CHOICES = ("prompt.choices", "prompt.gold", "prompt.terminator")
_NOT_WRITTEN = ("prompt.references", "generation", "judge")
_KEYS_BY_KIND: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # kind: keys and tables it needs, those that mean nothing there
    "choice": (("prompt.choices", "prompt.gold"), ("prompt.target", *_NOT_WRITTEN)),
    "continuation": (("prompt.target",), (*_OF_CHOICES, *_NOT_WRITTEN)),
    "generation": (("prompt.references", "judge", "metric"), _OF_CHOICES),
}
_OF_THE_HUB = ("config", "configs", "split", "where")
_OF_A_GENERATOR = ("difficulties", "count", "seed")


def parse_task(data: Mapping[str, Any], path: Path) -> Task:
    """The task a parsed file defines; raises `TaskError` naming the file and the key."""
    try:
        task = decode(Task, _spelt_out(data), folder=path.parent, no_keys=("path", "hash"))
        _check_fits(data, task)
        _check_sources(data["dataset"], data.get("fewshot"))
        _check_prompt(task)
        for name in task.aggregates:
            check_known(name, AGGREGATES, "aggregates")
        for name, kinds in task.columns.items():
            for kind in kinds:
                check_known(kind, COLUMN_KINDS, f"columns.{name}")
        judge = _judge(task.judge) if task.judge is not None else None
        metrics, metric = _metrics(task)
    except DecodingError as error:
        raise TaskError(f"{path}: {error}") from None
    return replace(
        task,
        path=path,
        hash=definition_hash(data),
        title=data.get("title", task.name),
        metric=metric,
        metrics=metrics,
        judge=judge,
        generation=task.generation or Generation() if task.kind == "generation" else None,
    )


def _spelt_out(data: Mapping[str, Any]) -> dict[str, Any]:
    """The file with what it may write in short written at length; what is of another type is left to the decoder."""
    table = dict(data)
    if isinstance(prompt := data.get("prompt"), dict):
        context, gold = prompt.get("context"), prompt.get("gold")
        table["prompt"] = {
            **prompt,
            **({"context": [context]} if isinstance(context, str) else {}),
            **({"gold": str(gold)} if isinstance(gold, int) else {}),
        }
    if isinstance(dataset := data.get("dataset"), dict):
        table["dataset"] = _one_source(dataset)
    if isinstance(columns := data.get("columns"), dict):
        table["columns"] = {name: _column_kinds(name, kinds) for name, kinds in columns.items()}
    return table


def _one_source(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Without what means nothing to a file, and with a list of configs."""
    if "file" in dataset:
        return {key: value for key, value in dataset.items() if key not in _OF_THE_HUB or key == "where"}
    if "config" not in dataset:
        return dict(dataset)
    if "configs" in dataset or not isinstance(dataset["config"], str):
        raise DecodingError("dataset needs 'config', a name, or 'configs', a list of names")
    return {**{key: value for key, value in dataset.items() if key != "config"}, "configs": [dataset["config"]]}


def _column_kinds(name: str, kinds: Any) -> list[str]:
    if not isinstance(kinds, str):
        raise DecodingError(f'columns.{name} must be a string such as "text" or "text | null"; found {kinds!r}')
    return [kind.strip() for kind in kinds.split("|")]


def _check_fits(data: Mapping[str, Any], task: Task) -> None:
    """Check that what the kind needs is there, and nothing that means nothing for it."""
    needed, meaningless = _KEYS_BY_KIND[task.kind]
    for names, wanted in ((needed, True), (meaningless, False)):
        for name in names:
            table, _, key = name.partition(".")
            if (table in data and (not key or key in data[table])) != wanted:
                what = "is needed" if wanted else "means nothing"
                shown = f"[{name}]" if name in ("generation", "judge") else name
                raise DecodingError(f"{shown} {what} for kind '{task.kind}'" + ("" if wanted else "; leave it out"))


def _check_sources(table: Mapping[str, Any], fewshot: Mapping[str, Any] | None) -> None:
    if sum(key in table for key in ("repo", "file", "generator")) != 1:
        raise DecodingError("[dataset] needs either 'repo' (with config and split) or 'file', or 'generator'")
    if "generator" in table:
        check_known(table["generator"], GENERATORS, "dataset.generator")
    for key in _OF_THE_HUB if "generator" in table else _OF_A_GENERATOR:
        if key in table:
            why = "means nothing to a generator" if "generator" in table else "needs dataset.generator"
            raise DecodingError(f"dataset.{key} {why}; leave it out")
    if fewshot is not None and sum(key in fewshot for key in ("split", "file", "examples")) != 1:
        raise DecodingError("[fewshot] needs one of 'split', 'file' and 'examples': where the examples are from")


def _check_prompt(task: Task) -> None:
    contexts, choices = task.prompt.context, task.prompt.choices
    if len(contexts) > 1 and task.kind != "choice":
        raise DecodingError(f"prompt.context must be one template for kind '{task.kind}'; found {len(contexts)}")
    if len(contexts) > 1 and isinstance(choices, tuple) and len(contexts) != len(choices):
        raise DecodingError(f"prompt.context has {len(contexts)} templates for {len(choices)} choices")


def _judge(judge: Judging) -> Judging:
    """The judge with its options decoded: which there are depends on its name."""
    check_known(judge.name, JUDGES, "judge.name")
    if not isinstance(judge.options, Mapping):
        raise DecodingError(f"judge.options must be a table; found {judge.options!r}")
    return Judging(judge.name, judge_options(judge.name, judge.options))


def _metrics(task: Task) -> tuple[tuple[str, ...], str]:
    """All metrics, and the headline."""
    known: tuple[str, ...] = CHOICE_METRICS if task.kind == "choice" else CONTINUATION_METRICS
    usual = tuple(name for name in known if name not in ("mc2", "all_gold"))
    if task.judge is not None:
        known, usual = JUDGES[task.judge.name].metrics, ()
    metrics = task.metrics or (usual if not task.metric or task.metric in usual else (task.metric,))
    metric = task.metric or metrics[0]
    for name in (*metrics, metric):
        check_known(name, known, "metric")
    if metric not in metrics:
        raise DecodingError(f"metric '{metric}' must be one of metrics = {list(metrics)}")
    return metrics, metric
