"""Checks a parsed task file key by key: what is unknown, missing or of the wrong kind is an error that names it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast, get_args

from gguf_eval.errors import TaskError, nearest
from gguf_eval.tasks.aggregates import AGGREGATES
from gguf_eval.tasks.answers import JUDGES, METRICS, require
from gguf_eval.tasks.generators.catalog import GENERATORS
from gguf_eval.tasks.generators.problem import DIFFICULTIES
from gguf_eval.tasks.metrics import CHOICE_METRICS, CONTINUATION_METRICS
from gguf_eval.tasks.spec import (
    COLUMN_KINDS,
    Dataset,
    Fewshot,
    Generation,
    Judge,
    Kind,
    Prompt,
    Sampler,
    Task,
    definition_hash,
)

_TEXT = ("name", "kind", "title", "description", "group", "subgroup", "metric", "licence", "paper")
_TOP = {*_TEXT, "version", "metrics", "aggregates"}
_TABLES = {
    "dataset": {"repo", "config", "configs", "split", "file", "where", "generator", "difficulties", "count", "seed"},
    "prompt": {
        "id", "context", "choices", "gold", "delimiter", "terminator", "target", "references", "description", "subject",
        "cluster",
    },
    "fewshot": {
        "count", "split", "file", "examples", "sampler", "seed", "separator", "same_subject", "context", "target",
    },
    "generation": {"max_tokens", "stop", "chat_stop", "temperature", "top_p", "seed"},
    "judge": {"name", "options"},
}  # fmt: skip
_FREE_TABLES = {"groups", "columns"}
_OF_CHOICES = ("prompt.choices", "prompt.gold", "prompt.terminator")
_NEEDED_BY_KIND: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # kind: keys of [prompt] it needs, keys and tables that mean nothing there
    "choice": (("context", "choices", "gold"), ("prompt.target", "prompt.references", "generation", "judge")),
    "continuation": (("context", "target"), (*_OF_CHOICES, "prompt.references", "generation", "judge")),
    "generation": (("context", "references"), _OF_CHOICES),
}


def parse_task(data: Mapping[str, Any], path: Path) -> Task:
    """The task a parsed file defines; raises `TaskError` naming the file and the key."""
    kind = _kind(data, path)
    metrics, metric = _metrics(data, kind, path)
    aggregates = _strings(data.get("aggregates", []), allow_empty=True)
    if aggregates is None:
        raise TaskError(f"{path}: aggregates must be a list of names; found {data['aggregates']!r}")
    for name in aggregates:
        _known(name, AGGREGATES, path, "aggregates")
    return Task(
        name=data["name"],
        version=data["version"],
        kind=kind,
        title=data.get("title", data["name"]),
        description=data.get("description", ""),
        group=data.get("group", ""),
        metric=metric,
        metrics=metrics,
        licence=data.get("licence", ""),
        paper=data.get("paper", ""),
        dataset=_dataset(data["dataset"], path),
        prompt=_prompt(data["prompt"], kind, path),
        path=path,
        hash=definition_hash(data),
        subgroup=data.get("subgroup", ""),
        aggregates=aggregates,
        fewshot=_fewshot(data["fewshot"], path) if "fewshot" in data else None,
        generation=_generation(data.get("generation", {}), path) if kind == "generation" else None,
        judge=_judge(data["judge"], path) if kind == "generation" else None,
        groups=_groups(data.get("groups", {}), path),
        columns=_columns(data.get("columns", {}), path),
    )


def _kind(data: Mapping[str, Any], path: Path) -> Kind:
    """Check which keys and tables there are; return the task's kind."""
    _check_keys(data, _TOP | set(_TABLES) | _FREE_TABLES, path, "")
    for table, keys in _TABLES.items():
        if table in data or table in ("dataset", "prompt"):
            if not isinstance(data.get(table), dict):
                raise TaskError(f"{path}: a table [{table}] is needed; see the tasks that ship for the form")
            _check_keys(data[table], keys, path, f"{table}.")
    for key, wanted in (("name", str), ("version", int), ("kind", str)):
        if not isinstance(data.get(key), wanted):
            raise TaskError(f"{path}: '{key}' must be given, as {wanted.__name__}; found {data.get(key)!r}")
    for key in _TEXT:
        if not isinstance(data.get(key, ""), str):
            raise TaskError(f"{path}: {key} must be a string; found {data[key]!r}")
    kind = data["kind"]
    if kind not in get_args(Kind):
        raise TaskError(
            f"{path}: kind '{kind}' is unknown{nearest(kind, get_args(Kind))} (known: {', '.join(get_args(Kind))})"
        )
    _check_fits(data, kind, path)
    return cast("Kind", kind)


def _check_fits(data: Mapping[str, Any], kind: str, path: Path) -> None:
    """Check that what the kind needs is there, and nothing that means nothing for it."""
    needed, meaningless = _NEEDED_BY_KIND[kind]
    for key in needed:
        if key not in data["prompt"]:
            raise TaskError(f"{path}: prompt.{key} is needed for kind '{kind}'")
    for name in meaningless:
        table, _, key = name.partition(".")
        if table in data and (not key or key in data[table]):
            raise TaskError(f"{path}: {name if key else f'[{name}]'} means nothing for kind '{kind}'; leave it out")
    if kind == "generation" and "judge" not in data:
        raise TaskError(f"{path}: a table [judge] is needed for kind 'generation'; see the tasks that ship")


def _metrics(data: Mapping[str, Any], kind: Kind, path: Path) -> tuple[tuple[str, ...], str]:
    known: tuple[str, ...] = {"choice": CHOICE_METRICS, "continuation": CONTINUATION_METRICS}.get(kind, ())
    default = [name for name in known if name not in ("mc2", "all_gold")]
    if kind == "generation":
        if not isinstance(data.get("metric"), str):
            raise TaskError(f"{path}: 'metric' must be given for kind 'generation': the judge's headline metric")
        default = [data["metric"]]
        name = data["judge"].get("name")
        known = METRICS.get(name, ()) if isinstance(name, str) else ()
    elif isinstance(data.get("metric"), str) and data["metric"] in known and data["metric"] not in default:
        default = [data["metric"]]
    metrics = _strings(data.get("metrics", default))
    if metrics is None:
        raise TaskError(f"{path}: metrics must be a list of names; found {data['metrics']!r}")
    metric = data.get("metric", metrics[0])
    if known:
        for name in (*metrics, metric):
            _known(name, known, path, "metric")
    if metric not in metrics:
        raise TaskError(f"{path}: metric '{metric}' must be one of metrics = {list(metrics)}")
    return metrics, metric


def _dataset(table: Mapping[str, Any], path: Path) -> Dataset:
    if sum(key in table for key in ("repo", "file", "generator")) != 1:
        raise TaskError(f"{path}: [dataset] needs either 'repo' (with config and split) or 'file', or 'generator'")
    if "generator" in table:
        return _generator(table, path)
    for key in ("difficulties", "count", "seed"):
        if key in table:
            raise TaskError(f"{path}: dataset.{key} needs dataset.generator; leave it out")
    _check_strings({key: value for key, value in table.items() if key != "configs"}, path, "dataset.")
    where = table.get("where", "")
    if "file" in table:
        return Dataset(file=path.parent / table["file"], where=where)
    configs = _strings(table.get("configs", [table.get("config", "default")]))
    if configs is None or ("config" in table and "configs" in table):
        raise TaskError(f"{path}: dataset needs 'config', a name, or 'configs', a list of names")
    return Dataset(table["repo"], configs, table.get("split", "test"), where=where)


def _generator(table: Mapping[str, Any], path: Path) -> Dataset:
    _known(table["generator"], GENERATORS, path, "dataset.generator")
    for key in ("config", "configs", "split", "where"):
        if key in table:
            raise TaskError(f"{path}: dataset.{key} means nothing to a generator; leave it out")
    difficulties = table.get("difficulties", list(range(1, DIFFICULTIES + 1)))
    if (
        not isinstance(difficulties, list)
        or not difficulties
        or not all(type(level) is int and 1 <= level <= DIFFICULTIES for level in difficulties)
    ):
        raise TaskError(
            f"{path}: dataset.difficulties must be a list of whole numbers from 1 to {DIFFICULTIES}; "
            f"found {difficulties!r}"
        )
    return Dataset(
        generator=table["generator"],
        difficulties=tuple(difficulties),
        count=int(_number(table, "count", 120, path, "dataset.", int, 1)),
        seed=int(_number(table, "seed", 0, path, "dataset.", int, 0)),
    )


def _prompt(table: Mapping[str, Any], kind: Kind, path: Path) -> Prompt:
    context = table["context"]
    contexts = _strings([context] if isinstance(context, str) else context)
    if contexts is None:
        raise TaskError(f"{path}: prompt.context must be a template or a list of templates; found {context!r}")
    if len(contexts) > 1 and kind != "choice":
        raise TaskError(f"{path}: prompt.context must be one template for kind '{kind}'; found {len(contexts)}")
    rest = {key: value for key, value in table.items() if key not in ("context", "choices", "gold")}
    _check_strings(rest, path, "prompt.")
    if kind != "choice":
        return Prompt(contexts, **rest)
    choices = table["choices"]
    templates = choices if isinstance(choices, str) else _strings(choices)
    if not templates:
        raise TaskError(f"{path}: prompt.choices must be a list of templates or an expression; found {choices!r}")
    if len(contexts) > 1 and isinstance(templates, tuple) and len(contexts) != len(templates):
        raise TaskError(f"{path}: prompt.context has {len(contexts)} templates for {len(templates)} choices")
    if not isinstance(table["gold"], str | int):
        raise TaskError(f"{path}: prompt.gold must be an expression that gives the right choice's index")
    return Prompt(contexts, templates, str(table["gold"]), **rest)


def _fewshot(table: Mapping[str, Any], path: Path) -> Fewshot:
    if sum(key in table for key in ("split", "file", "examples")) != 1:
        raise TaskError(f"{path}: [fewshot] needs one of 'split', 'file' and 'examples': where the examples are from")
    examples = table.get("examples", [])
    if not isinstance(examples, list) or not all(isinstance(row, dict) for row in examples):
        raise TaskError(f"{path}: fewshot.examples must be tables [[fewshot.examples]], a row each")
    for key in ("split", "file", "sampler", "separator", "context", "target"):
        _check_strings({key: table.get(key, "")}, path, "fewshot.")
    count = _number(table, "count", None, path, "fewshot.", int, 0)
    sampler = table.get("sampler", "first")
    _known(sampler, get_args(Sampler), path, "fewshot.sampler")
    if not isinstance(table.get("same_subject", False), bool):
        raise TaskError(f"{path}: fewshot.same_subject must be true or false; found {table['same_subject']!r}")
    return Fewshot(
        count=int(count),
        split=table.get("split", ""),
        file=path.parent / table["file"] if "file" in table else None,
        examples=tuple(examples),
        sampler=cast("Sampler", sampler),
        seed=int(_number(table, "seed", 1234, path, "fewshot.", int, 0)),
        separator=table.get("separator", "\n\n"),
        same_subject=table.get("same_subject", False),
        context=table.get("context", ""),
        target=table.get("target", ""),
    )


def _generation(table: Mapping[str, Any], path: Path) -> Generation:
    top_p = _number(table, "top_p", 1.0, path, "generation.", float, 0)
    if not 0 < top_p <= 1:
        raise TaskError(f"{path}: generation.top_p must be above 0 and at most 1; found {top_p}")
    return Generation(
        max_tokens=int(_number(table, "max_tokens", 256, path, "generation.", int, 1)),
        stop=_stop_strings(table, "stop", path),
        chat_stop=_stop_strings(table, "chat_stop", path) if "chat_stop" in table else None,
        temperature=_number(table, "temperature", 0.0, path, "generation.", float, 0),
        top_p=top_p,
        seed=int(_number(table, "seed", 0, path, "generation.", int, 0)),
    )


def _stop_strings(table: Mapping[str, Any], key: str, path: Path) -> tuple[str, ...]:
    stop = _strings(table.get(key, []), allow_empty=True)
    if stop is None or not all(stop):
        raise TaskError(f"{path}: generation.{key} must be a list of strings; found {table[key]!r}")
    return stop


def _judge(table: Mapping[str, Any], path: Path) -> Judge:
    _known(table.get("name"), JUDGES, path, "judge.name")
    options = table.get("options", {})
    if not isinstance(options, dict):
        raise TaskError(f"{path}: judge.options must be a table; found {options!r}")
    require(table["name"], options, str(path))
    return Judge(table["name"], options)


def _columns(table: Mapping[str, Any], path: Path) -> dict[str, tuple[str, ...]]:
    columns = {}
    for name, kinds in table.items():
        if not isinstance(kinds, str):
            raise TaskError(f'{path}: columns.{name} must be a string such as "text" or "text | null"; found {kinds!r}')
        columns[name] = tuple(kind.strip() for kind in kinds.split("|"))
        for kind in columns[name]:
            _known(kind, tuple(COLUMN_KINDS), path, f"columns.{name}")
    return columns


def _groups(table: Any, path: Path) -> dict[str, tuple[str, ...]]:
    if not isinstance(table, dict):
        raise TaskError(f"{path}: [groups] must be a table of lists of subjects; found {table!r}")
    groups = {}
    for name, members in table.items():
        subjects = _strings(members)
        if subjects is None:
            raise TaskError(f"{path}: groups.{name} must be a list of subjects; found {members!r}")
        groups[name] = subjects
    return groups


def _number(
    table: Mapping[str, Any],
    key: str,
    default: float | None,
    path: Path,
    prefix: str,
    kind: type[int] | type[float],
    low: float,
) -> float:
    value = table.get(key, default)
    allowed = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or value < low:
        what = "a whole number" if kind is int else "a number"
        raise TaskError(f"{path}: {prefix}{key} must be {what}, {low} or more; found {value!r}")
    return value


def _known(name: Any, known: Collection[str], path: Path, key: str) -> None:
    if not isinstance(name, str) or name not in known:
        raise TaskError(f"{path}: {key} '{name}' is unknown{nearest(str(name), known)} (known: {', '.join(known)})")


def _check_strings(table: Mapping[str, Any], path: Path, prefix: str) -> None:
    for key, value in table.items():
        if not isinstance(value, str):
            raise TaskError(f"{path}: {prefix}{key} must be a string; found {value!r}")


def _strings(value: Any, *, allow_empty: bool = False) -> tuple[str, ...] | None:
    """The value as a tuple where it is a list of strings, of one or more unless ``allow_empty``."""
    if isinstance(value, list) and (value or allow_empty) and all(isinstance(part, str) for part in value):
        return tuple(value)
    return None


def _check_keys(table: Mapping[str, Any], known: set[str], path: Path, prefix: str) -> None:
    for key in table:
        if key not in known:
            raise TaskError(
                f"{path}: unknown key '{prefix}{key}'{nearest(key, sorted(known))} (known: {', '.join(sorted(known))})"
            )
