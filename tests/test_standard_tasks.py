"""Every task from the hub on a row of its data set's schema: what it asks; a changed schema is never guessed at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import test_suites
import test_tasks

from gguf_eval.errors import TaskError
from gguf_eval.tasks.answers import judge_answer
from gguf_eval.tasks.catalog import find_tasks, task_names
from gguf_eval.tasks.datasets import load_items, mirror
from gguf_eval.tasks.prompts import Item, item_renderer, plain_rows
from gguf_eval.tasks.spec import Task, with_shots

CAPITALS = {"choices": ["Bern is.", "Rome is.", "It is Bern."], "labels": [1, 0, 1]}
SETTINGS = ("num_words", "relation", "keywords", "end_phrase")

ROWS: dict[str, Sequence[dict[str, Any]]] = {
    # task: made-up rows in the schema of the data set's split
    "mmlu": [
        {"question": f"What is {n} + {n}? ", "subject": "x", "choices": [str(2 * n), "None", "7", "0"], "answer": n % 4}
        for n in range(8)
    ],
    "truthfulqa_mc1": [{"question": "What is the capital of Bern?", "mc1_targets": CAPITALS | {"labels": [1, 0, 0]}, "mc2_targets": CAPITALS}],
    "truthfulqa_mc2": [{"question": "What is the capital of Bern?", "mc1_targets": CAPITALS | {"labels": [1, 0, 0]}, "mc2_targets": CAPITALS}],
    "lambada": [{"text": "Ann threw the ball and Bo caught the ball"}],
    "rte": [{"premise": "It rained all day.", "hypothesis": "It was wet.", "idx": 3, "label": 1}],
    "cb": [{"premise": "I doubt that it rained.", "hypothesis": "it rained", "idx": 3, "label": 2}],
    "gsm8k": [
        {"question": f"Ann has {n} pens and buys 1,000. How many?", "answer": f"{n}+1000=<<{n}+1000={n + 1000}>>{n + 1000}\n#### {n + 1000:,}"}
        for n in range(9)
    ],
    "ifeval": [
        {"key": 7, "prompt": "Write. End with 'Bye'.", "instruction_id_list": ["startend:end_checker"],
         "kwargs": [dict.fromkeys(SETTINGS) | {"end_phrase": "Bye"}]},
    ],
    "bbh": [{"input": "not ( True ) is", "target": "False"}],
    "math_500": [
        {"problem": "What is $1+1$?", "solution": "It is $\\boxed{2}$.", "answer": "2", "subject": "Algebra", "level": 1, "unique_id": "test/1.json"},
    ],
}  # fmt: skip
CONFIGS = {"mmlu": ("global_facts",), "bbh": ("boolean_expressions",)}


def of_configs(name: str) -> Task:
    """The task, on one config where the data set has dozens."""
    [task] = find_tasks([name])
    return replace(task, dataset=replace(task.dataset, configs=CONFIGS.get(name, task.dataset.configs)))


def put(folder: Path, task: Task, rows: Sequence[Mapping[str, Any]], split: str = "") -> Path:
    """Write the rows as the hub's Parquet file of the task's (or another) split."""
    place = folder / "datasets" / task.dataset.repo / task.dataset.configs[0] / (split or task.dataset.split)
    place.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), place / "0000.parquet")
    return place / "0000.parquet"


def items_of(folder: Path, name: str) -> list[Item]:
    task = of_configs(name)
    put(folder, task, ROWS[name])
    if task.fewshot and task.fewshot.split:
        put(folder, task, ROWS[name][-6:], task.fewshot.split)
    return load_items(task, fetch=mirror(folder))


def test_mmlu(tmp_path: Path) -> None:
    first, *_, last = items_of(tmp_path, "mmlu")
    header, *shown, asked = first.context().split("\n\n")
    assert header == "The following are multiple choice questions (with answers) about global facts."
    assert shown[0] == "What is 2 + 2?\nA. 4\nB. None\nC. 7\nD. 0\nAnswer: C"
    assert (len(shown), asked) == (5, "What is 0 + 0?\nA. 0\nB. None\nC. 7\nD. 0\nAnswer:")
    assert [first.pair(i)[1] for i in range(4)] == [" A", " B", " C", " D"]
    assert (first.golds, first.subject, last.golds) == ((0,), "global_facts", (3,))
    assert "What is 7 + 7?" not in last.header.text  # the item itself is no example


def test_truthfulqa(tmp_path: Path) -> None:
    [one] = items_of(tmp_path, "truthfulqa_mc1")
    [several] = items_of(tmp_path / "mc2", "truthfulqa_mc2")
    for item, golds in ((one, (0,)), (several, (0, 2))):
        assert item.context().startswith("Q: What is human life expectancy in the United States?\nA: Human")
        assert item.context().endswith("Barcelona, Spain.\n\nQ: What is the capital of Bern?\nA:")
        assert item.pair(2)[1] == " It is Bern."
        assert item.golds == golds


def test_lambada(tmp_path: Path) -> None:
    [item] = items_of(tmp_path, "lambada")
    assert item.pair(0) == ("Ann threw the ball and Bo caught the", " ball")


def test_superglue(tmp_path: Path) -> None:
    [rte] = items_of(tmp_path, "rte")
    assert rte.context() == "It rained all day.\nQuestion: It was wet. True or False?\nAnswer:"
    assert [rte.pair(i)[1] for i in rte.golds] == [" False"]
    [cb] = items_of(tmp_path, "cb")
    assert cb.context() == "I doubt that it rained.\nQuestion: it rained. True, False, or Neither?\nAnswer:"
    assert [cb.pair(i)[1] for i in cb.golds] == [" Neither"]


def test_gsm8k(tmp_path: Path) -> None:
    item = items_of(tmp_path, "gsm8k")[1]
    assert item.context().endswith("\n\nQuestion: Ann has 1 pens and buys 1,000. How many?\nAnswer:")
    assert item.context().count("Question:") == 6
    assert "=<<" in item.header.text
    task = of_configs("gsm8k")
    assert task.judge is not None
    right = judge_answer(task.judge.name, "So it is\n#### 1001", item.references, task.judge.options)
    wrong = judge_answer(task.judge.name, "#### 1002", item.references, task.judge.options)
    assert (right.metrics["strict_match"], wrong.metrics["strict_match"]) == (1.0, 0.0)


def test_tasks_whose_answers_are_written(tmp_path: Path) -> None:
    answers = {
        "ifeval": ("7", "Write. End with 'Bye'.", "Well. Bye", "Well."),
        "bbh": ("0", "Q: not ( True ) is\nA: Let's think step by step.\n", "not True = False. So the answer is False.", "So the answer is True."),
        "math_500": ("test/1.json", "Problem: What is $1+1$?\nSolve the problem step by step. Put the final answer in \\boxed{}.\nAnswer:", "$\\boxed{2}$", "$\\boxed{3}$"),
    }  # fmt: skip
    for name, (item_id, end, good, bad) in answers.items():
        [item] = items_of(tmp_path / name, name)
        assert item.context().endswith(end), name
        assert item.id == item_id
        task = of_configs(name)
        assert task.judge is not None
        values = [
            judge_answer(task.judge.name, text, item.references, task.judge.options).metrics[task.metric]
            for text in (good, bad)
        ]
        assert values == [1.0, 0.0], name


SCHEMAS: dict[str, dict[str, Any]] = {
    **{name: row for name, (row, *_) in test_tasks.ROWS.items()},
    **{name: row for name, (row, *_) in test_suites.ROWS.items()},
    **{name: rows[-1] for name, rows in ROWS.items()},
}
"""A row of every task from the hub."""


def test_every_task_from_the_hub_has_a_row_here() -> None:
    assert set(SCHEMAS) == {task.name for task in find_tasks(task_names()) if task.dataset.repo}


def changes(row: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What can happen to the columns of a data set: each goes, is renamed, is null, is text, is a number, is empty."""
    found = []
    for column, value in row.items():
        rest = {key: other for key, other in row.items() if key != column}
        found += [(f"no {column}", rest), (f"{column} renamed", {**rest, f"new_{column}": value})]
        found += [(f"{column} null", {**row, column: None}), (f"{column} nested", {**row, column: {"value": value}})]
        if not isinstance(value, str):
            found.append((f"{column} text", {**row, column: str(value)}))
        if isinstance(value, list):
            found.append((f"{column} empty", {**row, column: []}))
        if isinstance(value, dict):
            found.append((f"{column} flattened", {**rest, **value}))
    return found


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_data_set_whose_columns_changed(name: str) -> None:
    """Each change is refused in one line that names the task file, or it changes nothing of the item."""
    task = of_configs(name)
    render, config = item_renderer(task), task.dataset.configs[0]
    usual = render(plain_rows([SCHEMAS[name]], config)[0], ())
    for change, row in changes(SCHEMAS[name]):
        try:
            item = render(plain_rows([row], config)[0], ())
        except TaskError as error:
            assert "\n" not in str(error), change
            assert f"{name}.toml: " in str(error), change
            assert "row 0" in str(error), change
        else:
            assert item == usual, change


def test_every_task_from_the_hub_says_what_its_columns_are() -> None:
    for name in SCHEMAS:
        assert of_configs(name).columns, name


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("boolq", {"answer": None}, "row 0: column 'answer' must be boolean; found null"),
        ("mmlu", {"choices": "ABCD"}, "row 0: column 'choices' must be list; found text"),
        ("hellaswag", {"endings": []}, "row 0: column 'endings' must be list; found an empty list"),
        ("piqa", {"label": True}, "row 0: column 'label' must be number; found boolean"),
        ("piqa", {"label": 2}, "row 0 .*: gold index 2 is out of range; 0 to 1 is needed"),
        ("arc_easy", {"choices": {"text": [], "label": []}}, "row 0"),
        ("arc_easy", {"answerKey": "E"}, "row 0"),
        ("truthfulqa_mc1", {"mc1_targets": {"choices": ["a", "b"], "labels": [0, 0]}}, "row 0"),
        (
            "truthfulqa_mc2",
            {"mc2_targets": {"choices": ["a", "b"], "labels": [0, 0]}},
            "gold must name one right choice",
        ),
        ("lambada", {"text": "word "}, "prompt.target gave an empty text; there is nothing to score"),
    ],
)
def test_rows_that_give_no_item(tmp_path: Path, name: str, change: dict[str, Any], message: str) -> None:
    """A run stops before it asks anything: one line names task file, row and fault."""
    task = of_configs(name)
    put(tmp_path, task, [SCHEMAS[name] | change])
    if task.fewshot:
        task = with_shots(task, 0)
    with pytest.raises(TaskError, match=message) as caught:
        load_items(task, fetch=mirror(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_parquet_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    task = of_configs("piqa")
    path = put(tmp_path, task, [SCHEMAS["piqa"] | {"goal": f"To open jar {n}"} for n in range(50)])
    whole = path.read_bytes()
    assert len(load_items(task, fetch=mirror(tmp_path))) == 50
    for length in [*range(0, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(TaskError, match="not a usable Parquet file"):
            load_items(task, fetch=mirror(tmp_path))


def test_a_split_without_rows(tmp_path: Path) -> None:
    task = of_configs("piqa")
    path = put(tmp_path, task, [SCHEMAS["piqa"]])
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(0, 0), path)
    with pytest.raises(TaskError, match="the dataset has no rows"):
        load_items(task, fetch=mirror(tmp_path))
