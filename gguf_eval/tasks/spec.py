"""Task files: what a task is. `load_task` reads one from TOML, `gguf_eval.tasks.definition` decodes and checks it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from gguf_eval.errors import TaskError
from gguf_eval.tasks.generators.problem import DIFFICULTIES

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - the parser moved into the standard library in 3.11
    import tomli as tomllib

Kind = Literal["choice", "generation", "continuation"]
"""choice: which of several answers is the most likely; generation: the model writes, a judge reads; continuation: how
likely the right continuation is, and whether greedy decoding gives it."""

Sampler = Literal["first", "random", "random_per_item"]
"""first: the first rows that are not the item itself. random: one seeded draw for all items (of a config), so that all
share a header. random_per_item: lm-evaluation-harness's default, another draw for each item, in the rows' order."""

Stop = Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(description="a list of strings")]

COLUMN_KINDS: Mapping[str, tuple[type, ...]] = {
    "text": (str,), "number": (int, float), "boolean": (bool,), "list": (list, tuple), "table": (dict,),
    "null": (type(None),),
}  # fmt: skip
"""What a task can ask of a column; a list is one of at least one entry."""

DOCUMENTATION = frozenset({"title", "description", "group", "subgroup", "licence", "paper", "columns"})
"""Keys that change no answer and so are no part of the task's identity."""


@dataclass(frozen=True)
class Dataset:
    """Where the rows come from: a split of a hub dataset, or a file beside the task file."""

    repo: str = ""
    configs: Annotated[tuple[str, ...], Meta(min_length=1, description="a list of names")] = ("default",)
    """The rows of all of them, one after the other; templates see a row's as ``dataset_config``."""
    split: str = "test"
    file: Path | None = None
    """JSON Lines, JSON (a list of objects), CSV or Parquet, by its ending."""
    where: str = ""
    """A Jinja expression; rows for which it is false are left out."""
    generator: str = ""
    """Or rows made by rule: one of `gguf_eval.tasks.generators.catalog`."""
    difficulties: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=DIFFICULTIES)], ...],
        Meta(min_length=1, description=f"a list of whole numbers from 1 to {DIFFICULTIES}"),
    ] = tuple(range(1, DIFFICULTIES + 1))
    """Of the generated rows, in turn."""
    count: Annotated[int, Meta(ge=1)] = 120
    """Generated rows unless a limit says how many; they never run out."""
    seed: Annotated[int, Meta(ge=0)] = 0


@dataclass(frozen=True)
class Prompt:
    """Jinja sources that turn a row into an item."""

    context: Annotated[tuple[str, ...], Meta(min_length=1, description="a template or a list of templates")]
    """One template, or one for each choice (partial scoring: what follows is the same)."""
    choices: Annotated[
        Annotated[str, Meta(min_length=1)] | Annotated[tuple[str, ...], Meta(min_length=1)],
        Meta(description="a list of templates or an expression"),
    ] = ()
    """kind choice: a Jinja expression that gives the list of choices, or one template for each."""
    gold: Annotated[str, Meta(description="an expression that gives the right choice's index")] = ""
    """kind choice: an expression that gives the index of the right choice, counted from 0, or a list of them."""
    id: str = ""
    """A template of the item's id; the row number unless given (after the config, where there are several)."""
    delimiter: str = " "
    """What stands between context and answer."""
    terminator: str = ""
    """kind choice: ends every choice, and is part of it. Of two choices of which one begins the other the longer can
    never have the higher sum of log-likelihoods ("son", "son-in-law") unless both end ("son.", "son-in-law.")."""
    target: str = ""
    """kind continuation: a template of what is scored. kind generation: of the answer that few-shot examples show;
    the first reference unless given."""
    references: str = ""
    """kind generation: an expression that gives what the judge compares with: a string, or a list of any values."""
    description: str = ""
    """A template of what stands before the examples; the system message where chat is on."""
    subject: str = ""
    """A template of the item's subject: scores are given for each as well, and for ``[groups]`` of them."""
    cluster: str = ""
    """A template; items of one cluster (a shared passage, a shared dialogue) are not independent of each other."""


@dataclass(frozen=True)
class Fewshot:
    """Worked examples before every item; never the item itself."""

    count: Annotated[int, Meta(ge=0)]
    split: str = ""
    """A split of the same repo and config."""
    file: Path | None = None
    """Or a file beside the task file."""
    examples: Annotated[tuple[Mapping[str, Any], ...], Meta(description="tables [[fewshot.examples]], a row each")] = ()
    """Or rows written in the task file."""
    sampler: Sampler = "first"
    seed: Annotated[int, Meta(ge=0)] = 1234
    separator: str = "\n\n"
    """Stands after each example."""
    same_subject: bool = False
    """Only examples whose ``prompt.subject`` is the item's (for files that hold all subjects' examples)."""
    context: str = ""
    """A template of an example's question; ``prompt.context`` unless given."""
    target: str = ""
    """A template of an example's answer; the right choice or ``prompt.target`` unless given."""


@dataclass(frozen=True)
class Generation:
    """How an answer is written (kind generation)."""

    max_tokens: Annotated[int, Meta(ge=1)] = 256
    stop: Stop = ()
    """Strings that end an answer; they are no part of it."""
    chat_stop: Stop | None = None
    """The same where the model is asked in a conversation, which it ends itself; `stop` unless given."""
    temperature: Annotated[float, Meta(ge=0)] = 0.0
    """0 is greedy."""
    top_p: Annotated[float, Meta(gt=0, le=1, description="above 0 and at most 1")] = 1.0
    seed: Annotated[int, Meta(ge=0)] = 0


@dataclass(frozen=True)
class Judging:
    """Which judge of `gguf_eval.tasks.answers` reads the answer (kind generation)."""

    name: str
    options: Any = field(default_factory=dict)
    """Of the judge's own type, once they are decoded."""


@dataclass(frozen=True, kw_only=True)
class TaskHead:
    """What a study keeps of a task: with it, its answers can be read without the task's file."""

    hash: str = ""
    """SHA-256 of everything in the file that can change an answer."""
    name: str
    version: int
    title: str = ""
    group: str = ""
    metric: Annotated[str, Meta(min_length=1, description="a metric's name")] = ""
    """The headline metric, a mean over items; the others are computed too."""
    metrics: Annotated[tuple[str, ...], Meta(min_length=1, description="a list of names")] = ()
    subgroup: str = ""
    kind: Kind
    aggregates: Annotated[tuple[str, ...], Meta(description="a list of names")] = ()
    """Figures over all items together that are no mean over them (`gguf_eval.tasks.aggregates`)."""
    groups: Annotated[
        Mapping[str, Annotated[tuple[str, ...], Meta(min_length=1, description="a list of subjects")]],
        Meta(description="a table of lists of subjects"),
    ] = field(default_factory=dict)
    """Named groups of subjects."""


@dataclass(frozen=True, kw_only=True)
class Task(TaskHead):
    """One task file."""

    description: str = ""
    licence: str = ""
    paper: str = ""
    dataset: Dataset
    prompt: Prompt
    path: Path = Path()
    fewshot: Fewshot | None = None
    generation: Generation | None = None
    judge: Judging | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What the prompt's columns must be, one or more of `COLUMN_KINDS` each: a row that is otherwise is refused."""


def load_task(path: Path) -> Task:
    """Read and check a task file; raises `TaskError` naming the file and the key."""
    from gguf_eval.tasks.definition import parse_task

    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TaskError(f"{path}: no such task file; give the path of a .toml file or a task's name") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: can't be read ({error}); check the file") from None
    except tomllib.TOMLDecodeError as error:
        raise TaskError(f"{path}: not valid TOML: {error}") from None
    return parse_task(data, path)


def with_shots(task: Task, count: int) -> Task:
    """The task with another number of few-shot examples; it is another task, of another hash."""
    if task.fewshot is None or task.fewshot.count == count:
        if task.fewshot is None and count:
            raise TaskError(f"{task.path}: has no [fewshot] table, so that it can't be asked with {count} examples")
        return task
    identity = hashlib.sha256(f"{task.hash} with {count} examples".encode()).hexdigest()
    title = f"{task.title}, {count}-shot"
    return replace(task, fewshot=replace(task.fewshot, count=count), hash=identity, title=title)


def definition_hash(data: Mapping[str, Any]) -> str:
    """SHA-256 of a parsed task file without the keys that only document it."""
    relevant = {key: value for key, value in data.items() if key not in DOCUMENTATION}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
