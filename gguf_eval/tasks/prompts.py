"""Turns dataset rows into items: renders the task's templates and checks what comes out.

An item is text that is the same for every model; a chat template is applied where the model is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gguf_eval.errors import TaskError
from gguf_eval.tasks.spec import COLUMN_KINDS, Fewshot, Kind, Task
from gguf_eval.tasks.templates import Templates


@dataclass(frozen=True)
class Example:
    """A worked example before an item."""

    question: str
    answer: str


@dataclass(frozen=True)
class Header:
    """What stands before an item's own context; items of a task mostly share one."""

    description: str = ""
    examples: tuple[Example, ...] = ()
    delimiter: str = " "
    """Between an example's question and its answer."""
    separator: str = "\n\n"
    """After an example."""

    @property
    def text(self) -> str:
        """The header as plain text."""
        return self.description + self.shown

    @property
    def shown(self) -> str:
        """The examples as plain text."""
        return "".join(f"{e.question}{self.delimiter}{e.answer}{self.separator}" for e in self.examples)


@dataclass(frozen=True, kw_only=True)
class ItemRecord:
    """What a study keeps of an item: with it, its answers can be read without the task."""

    hash: str
    id: str
    contexts: tuple[str, ...] = ()
    """One context, or one for each choice; the header is no part of it."""
    choices: tuple[str, ...] = ()
    """kind choice: the answers; continuation: the one text that is scored; generation: none."""
    golds: tuple[int, ...] = ()
    """Indices of all right choices."""
    references: tuple[Any, ...] = ()
    """kind generation: what the judge compares with."""
    subject: str = ""
    cluster: str = ""
    """Items of one cluster are not independent of each other; the item's id unless the task says otherwise."""

    @property
    def gold(self) -> int:
        """Index of the first right choice; 0 where nothing is chosen."""
        return self.golds[0] if self.golds else 0


@dataclass(frozen=True, kw_only=True)
class Item(ItemRecord):
    """One question, rendered."""

    header: Header
    delimiter: str
    """Stands between context and choice, and is no part of the choice's length."""

    def context(self, index: int = 0) -> str:
        """The whole text before choice ``index``: header and context."""
        return self.header.text + self.contexts[index if len(self.contexts) > 1 else 0]

    def pair(self, index: int) -> tuple[str, str]:
        """Context and continuation of one choice."""
        return self.context(index), self.delimiter + self.choices[index]


def make_item(
    item_id: str,
    contexts: tuple[str, ...],
    choices: tuple[str, ...],
    golds: tuple[int, ...],
    delimiter: str,
    *,
    header: Header = Header(),
    references: tuple[Any, ...] = (),
    subject: str = "",
    cluster: str = "",
) -> Item:
    """Build an item; its hash covers its id and everything the model and the scoring see."""
    content = [item_id, contexts, choices, golds, delimiter, header.text, references]
    digest = hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
    return Item(
        hash=digest, id=item_id, contexts=contexts, choices=choices, golds=golds, references=references,
        subject=subject, cluster=cluster or item_id, header=header, delimiter=delimiter,
    )  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row of a dataset and where it stands."""

    number: int
    """In its config, before anything is left out."""
    config: str
    columns: Mapping[str, Any]
    """With ``dataset_config`` unless the dataset has such a column."""


ItemRenderer = Callable[[Row, tuple[Example, ...]], Item]


def item_renderer(task: Task) -> ItemRenderer:
    """Compile the task's templates once; the result renders (row, its few-shot examples), raising `TaskError`."""
    prompt = task.prompt
    templates = Templates(task.path)
    contexts = [templates.text(source) for source in prompt.context]
    choices = _choices(templates, prompt.choices, prompt.terminator)
    gold = templates.expression(prompt.gold) if prompt.gold else None
    target = templates.text(prompt.target) if task.kind == "continuation" else None
    references = templates.expression(prompt.references) if prompt.references else None
    name, description = templates.text(prompt.id), templates.text(prompt.description)
    subject, cluster = templates.text(prompt.subject), templates.text(prompt.cluster)
    separator = (task.fewshot or Fewshot(0)).separator
    several = len(task.dataset.configs) > 1

    def render(row: Row, examples: tuple[Example, ...] = ()) -> Item:
        where = row_place(task, row)
        number = f"{row.config}/{row.number}" if several else str(row.number)
        columns = row.columns
        _check_columns(where, task, columns)
        with templates.rendering(where, columns):
            item_id = name(columns) or number
            texts = tuple(context(columns) for context in contexts)
            header = Header(description(columns), examples, prompt.delimiter, separator)
            right = gold(columns) if gold else 0
            compared = references(columns) if references else ()
            answers = [target(columns)] if target else choices(columns)
            labels = {"subject": subject(columns), "cluster": cluster(columns)}
        where = f"{where} (item '{item_id}')"
        golds = _checked_choices(where, task.kind, answers, right, len(texts))
        return make_item(
            item_id, texts, tuple(answers), golds, prompt.delimiter, header=header,
            references=_checked_references(where, task.kind, compared), **labels,
        )  # fmt: skip

    return render


def row_place(task: Task, row: Row) -> str:
    """How messages name a row."""
    return f"{task.path}: " + (f"{row.config} " if len(task.dataset.configs) > 1 else "") + f"row {row.number}"


def example_renderer(task: Task) -> Callable[[Row], tuple[Example, str]]:
    """The result renders a row as an example, with its subject."""
    fewshot = task.fewshot or Fewshot(0)
    templates = Templates(task.path)
    render = item_renderer(task) if not (fewshot.context and fewshot.target) else None
    context = templates.text(fewshot.context)
    target = templates.text(fewshot.target or (task.prompt.target if task.kind == "generation" else ""))
    subject = templates.text(task.prompt.subject)

    def show(row: Row) -> tuple[Example, str]:
        with templates.rendering(f"{task.path}: few-shot row {row.number}", row.columns):
            question, answer, of = context(row.columns), target(row.columns), subject(row.columns)
        if render is not None:
            item = render(row, ())
            question = question or item.contexts[item.gold if len(item.contexts) > 1 else 0]
            answer = answer or str(item.choices[item.gold] if item.choices else item.references[0])
        return Example(question, answer), of

    return show


def _check_columns(where: str, task: Task, columns: Mapping[str, Any]) -> None:
    """Refuse a row whose columns are not what the task says: templates would make some prompt of it all the same."""
    for name, kinds in task.columns.items():
        if name not in columns:
            found = ", ".join(sorted(column for column in columns if column != "dataset_config"))
            raise TaskError(f"{where}: '{name}' is undefined; the dataset's columns are: {found}")
        if kind_of(columns[name]) not in kinds:
            raise TaskError(f"{where}: column '{name}' must be {' or '.join(kinds)}; found {kind_of(columns[name])}")


def kind_of(value: Any) -> str:
    """Which of `COLUMN_KINDS` a value is, or the name of its type."""
    if isinstance(value, bool):  # a bool is an int too
        return "boolean"
    if isinstance(value, list | tuple) and not value:
        return "an empty list"
    return next((kind for kind, types in COLUMN_KINDS.items() if isinstance(value, types)), type(value).__name__)


def _choices(templates: Templates, source: str | Sequence[str], terminator: str) -> Callable[[Mapping[str, Any]], Any]:
    """What makes the list of choices of a row; what is no list of texts is passed on, to be refused."""
    if isinstance(source, str):
        made = templates.expression(source)
    else:
        parts = [templates.text(part) for part in source]

        def made(columns: Mapping[str, Any]) -> Any:
            return [part(columns) for part in parts]

    def ended(columns: Mapping[str, Any]) -> Any:
        found = made(columns)
        if not isinstance(found, list | tuple) or not all(isinstance(choice, str) for choice in found):
            return found
        return [choice + terminator for choice in found]

    return ended


def _checked_choices(where: str, kind: Kind, answers: Any, gold: Any, contexts: int) -> tuple[int, ...]:
    """The indices of the right choices."""
    if kind == "generation":
        return ()
    if kind == "continuation":
        if not answers[0]:
            raise TaskError(f"{where}: prompt.target gave an empty text; there is nothing to score")
        return (0,)
    if not isinstance(answers, list | tuple) or len(answers) < 2 or not all(isinstance(a, str) for a in answers):
        raise TaskError(f"{where}: two choices or more are needed, as strings; found {answers!r}")
    golds = gold if isinstance(gold, list | tuple) else [gold]
    for index in golds:
        if isinstance(index, bool) or not isinstance(index, int):
            raise TaskError(f"{where}: gold must be the right choice's index; found {gold!r}")
        if not 0 <= index < len(answers):
            raise TaskError(f"{where}: gold index {index} is out of range; 0 to {len(answers) - 1} is needed")
    if not golds:
        raise TaskError(f"{where}: gold must name one right choice or more; found {gold!r}")
    if contexts > 1 and contexts != len(answers):
        raise TaskError(f"{where}: {contexts} contexts for {len(answers)} choices; one or as many are needed")
    return tuple(dict.fromkeys(golds))


def _checked_references(where: str, kind: Kind, references: Any) -> tuple[Any, ...]:
    """The references as a tuple of JSON's values."""
    found = tuple(references) if isinstance(references, list | tuple) else (references,)
    if kind == "generation" and not found:
        raise TaskError(f"{where}: prompt.references gave none; the judge needs one or more")
    if any(value is None for value in found):
        raise TaskError(f"{where}: prompt.references gave {references!r}; the judge needs values")
    try:
        json.dumps(found)
    except (TypeError, ValueError) as error:
        raise TaskError(f"{where}: prompt.references must give texts, numbers, lists or tables: {error}") from None
    return found


def plain_rows(rows: Sequence[Mapping[str, Any]], config: str = "default") -> list[Row]:
    """Rows as they are numbered in their config; a column "ask-for" can also be named ask_for in templates."""
    return [Row(number, config, {"dataset_config": config, **_named(row), **row}) for number, row in enumerate(rows)]


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """Columns whose name has a hyphen, under a name that templates can use."""
    return {name.replace("-", "_"): value for name, value in row.items() if "-" in name}
