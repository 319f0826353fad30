"""Tasks: the ones that ship, prompts spelt out, and what is said of wrong task files and rows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_eval.errors import TaskError, UsageError
from gguf_eval.tasks.catalog import find_tasks, suites, task_names, tasks_folder
from gguf_eval.tasks.datasets import chosen_rows, load_items, mirror
from gguf_eval.tasks.metrics import ChoiceScores, is_finite, picks
from gguf_eval.tasks.prompts import Item, item_renderer, plain_rows
from gguf_eval.tasks.spec import load_task

TASKS = Path(__file__).parents[1] / "tasks"


def no_fetch(repo: str, config: str, split: str) -> Sequence[Path]:
    raise AssertionError(f"nothing may be fetched, asked for {repo}")


def rendered(name: str, row: dict[str, Any]) -> Item:
    return item_renderer(load_task(TASKS / f"{name}.toml"))(plain_rows([row])[0], ())


# The tasks that ship

ROWS: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[str, ...], int]] = {
    # task: a row in the data set's own schema, the contexts, the continuations as they are scored, the right one
    "hellaswag": (
        {
            "ind": 4, "activity_label": "Baking bread", "ctx_a": "A man mixes flour [title] Knead it [step] well.",
            "ctx_b": "then he", "ctx": "", "source_id": "x", "split": "val", "split_type": "indomain", "label": "2",
            "endings": [" rests [substeps] now.", "eats  it.", "[title] bakes it.", "sings [title] Loudly."],
        },
        ("Baking bread: A man mixes flour. Knead it well. Then he",),
        (" rests now.", " eats it.", "  bakes it.", " sings. Loudly."),
        2,
    ),
    "arc_easy": (
        {
            "id": "Mercury_1", "question": "What is ice?",
            "choices": {"text": ["water", "sand", "iron"], "label": ["A", "B", "C"]}, "answerKey": "A",
        },
        ("Question: What is ice?\nAnswer:",),
        (" water", " sand", " iron"),
        0,
    ),
    "arc_challenge": (
        {
            "id": "NYSEDREGENTS_2", "question": "What is ice?",
            "choices": {"text": ["gas", "sand", "iron", "water", "wood"], "label": ["1", "2", "3", "4", "5"]},
            "answerKey": "4",
        },
        ("Question: What is ice?\nAnswer:",),
        (" gas", " sand", " iron", " water", " wood"),
        3,
    ),
    "piqa": (
        {"goal": "To open a jar,", "sol1": "twist the lid.", "sol2": "freeze the lid.", "label": 0},
        ("Question: To open a jar,\nAnswer:",),
        (" twist the lid.", " freeze the lid."),
        0,
    ),
    "openbookqa": (
        {
            "id": "8-343", "question_stem": "A stove is",
            "choices": {"text": ["hot", "cold", "wet", "soft"], "label": ["A", "B", "C", "D"]}, "answerKey": " B",
        },
        ("A stove is",),
        (" hot", " cold", " wet", " soft"),
        1,
    ),
    "commonsense_qa": (
        {
            "id": "ab12", "question": " Where do fish live? ", "question_concept": "fish",
            "choices": {"label": ["A", "B", "C", "D", "E"], "text": ["sky", "sea", "sand", "tree", "book"]},
            "answerKey": "B",
        },
        ("Question: Where do fish live?\nA. sky\nB. sea\nC. sand\nD. tree\nE. book\nAnswer:",),
        (" A", " B", " C", " D", " E"),
        1,
    ),
    "social_iqa": (
        {
            "context": "Ann fell.", "question": "How does Ann feel?", "answerA": "hurt", "answerB": "glad",
            "answerC": "rich", "label": "1",
        },
        ("Q: Ann fell. How does Ann feel?\nA:",),
        (" hurt", " glad", " rich"),
        0,
    ),
    "winogrande": (
        {"sentence": "The cup fell off the shelf because the _ was narrow .", "option1": "cup", "option2": "shelf",
         "answer": "2"},
        ("The cup fell off the shelf because the cup", "The cup fell off the shelf because the shelf"),
        (" was narrow .", " was narrow ."),
        1,
    ),
    "boolq": (
        {"question": "is ice cold", "passage": "Ice is frozen water.", "answer": True},
        ("Ice is frozen water.\nQuestion: is ice cold?\nAnswer:",),
        (" no", " yes"),
        1,
    ),
    "copa": (
        {"premise": "The glass fell.", "choice1": "It broke.", "choice2": "I caught it.", "question": "effect",
         "idx": 3, "label": 0},
        ("The glass fell therefore",),
        ("  it broke.", "  i caught it."),
        0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_prompts_of_hub_tasks(name: str) -> None:
    row, contexts, continuations, gold = ROWS[name]
    item = rendered(name, row)
    assert item.contexts == contexts
    pairs = [item.pair(index) for index in range(len(item.choices))]
    assert tuple(continuation for _, continuation in pairs) == continuations
    assert [context for context, _ in pairs] == (list(contexts) if len(contexts) > 1 else list(contexts) * len(pairs))
    assert item.gold == gold
    assert item.id == row.get("id", "0")


def test_cause_in_copa() -> None:
    row = ROWS["copa"][0] | {"question": "cause"}
    assert rendered("copa", row).contexts == ("The glass fell because",)


def test_every_shipped_task_is_tested_and_of_sound_form() -> None:
    names = task_names()
    assert set(names) >= {*ROWS, "grammar", "everyday"}
    for task in find_tasks(names):
        assert task.name == task.path.stem
        assert task.metric in task.metrics
        assert task.title
        assert task.description
        assert task.group
        assert task.licence
        assert (bool(task.dataset.repo), bool(task.dataset.file), bool(task.dataset.generator)).count(True) == 1
    assert set(suites()) >= {"offline", "commonsense", "scale-and-precision"}
    assert set().union(*suites().values()) <= set(names)


def test_hashes_of_tasks_differ_and_documentation_has_no_part_in_them(tmp_path: Path) -> None:
    tasks = find_tasks(task_names())
    assert len({task.hash for task in tasks}) == len(tasks)
    text = (TASKS / "piqa.toml").read_text(encoding="utf-8")
    base = load_task(TASKS / "piqa.toml").hash

    def changed(old: str, new: str) -> str:
        assert old in text
        path = tmp_path / "piqa.toml"
        path.write_text(text.replace(old, new), encoding="utf-8")
        return load_task(path).hash

    assert changed('title = "PIQA"', 'title = "Other"\n# a comment') == base
    assert changed("version = 1", "version = 2") != base
    assert changed("Question: ", "Q: ") != base
    assert changed('split = "validation"', 'split = "train"') != base


@pytest.mark.shared_data
def test_real_rows_render(shared_data: Path) -> None:
    for task in find_tasks(list(ROWS)):
        items = load_items(task, fetch=mirror(shared_data / "hub"))
        assert items
        assert len({item.id for item in items}) == len(items)
        assert all(context.strip() for item in items for context in item.contexts)
        assert all(choice.strip() for item in items for choice in item.choices)


def test_grammar_is_remade_byte_for_byte(tmp_path: Path) -> None:
    made = tmp_path / "grammar.jsonl"
    subprocess.run([sys.executable, str(TASKS / "make_grammar.py"), str(made)], check=True)
    assert made.read_bytes() == (TASKS / "grammar.jsonl").read_bytes()


def test_grammar_rows() -> None:
    (task,) = find_tasks(["grammar"])
    items = load_items(task, fetch=no_fetch)
    assert len(items) == 240
    assert all(item.contexts == ("",) and item.gold == 0 and item.delimiter == "" for item in items)
    sentences = [sentence for item in items for sentence in item.choices]
    assert len(set(sentences)) == len(sentences)
    rows = [json.loads(line) for line in (TASKS / "grammar.jsonl").read_text(encoding="utf-8").splitlines()]
    assert set(Counter(row["phenomenon"] for row in rows).values()) == {16}
    for row in rows:
        for sentence in (row["good"], row["bad"]):
            assert re.fullmatch(r"[A-Z].*[.?]", sentence)
            assert "  " not in sentence
            assert not set(sentence) & set("[]{}|")


def test_everyday_rows() -> None:
    (task,) = find_tasks(["everyday"])
    items = load_items(task, fetch=no_fetch)
    assert len(items) == 240
    assert Counter(item.gold for item in items) == dict.fromkeys(range(4), 60)
    assert len({item.contexts for item in items}) == 240
    for item in items:
        assert len(item.choices) == len({choice.lower() for choice in item.choices}) == 4
        assert all(choice == choice.strip() and choice for choice in item.choices)
        assert item.contexts[0] == item.contexts[0].rstrip()


# Task files

TASK = """
name = "mine"
version = 1
kind = "choice"
metric = "acc"

[dataset]
file = "mine.jsonl"

[prompt]
id = "{{ number }}"
context = "{{ question }}"
choices = "options"
gold = "answer"
"""
GOOD = {"number": 1, "question": "Q", "options": ["a", "b"], "answer": 1}


def write_task(folder: Path, *, rows: Sequence[Any] | str = (GOOD,), edits: dict[str, str] | None = None) -> Path:
    """A task of our own; ``edits`` replace parts of its file, ``rows`` as text are written as they are."""
    text = TASK
    for old, new in (edits or {}).items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    lines = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "mine.jsonl").write_text(lines, encoding="utf-8")
    return path


def items_of(path: Path) -> list[Item]:
    return load_items(load_task(path), fetch=no_fetch)


def refusal(path: Path) -> str:
    """The message with which the task is refused: one line."""
    with pytest.raises(TaskError) as caught:
        items_of(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path.parent) in message
    return message


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    (item,) = items_of(write_task(tmp_path))
    assert (item.id, item.contexts, item.choices, item.gold, item.delimiter) == ("1", ("Q",), ("a", "b"), 1, " ")
    assert load_task(tmp_path / "mine.toml").metrics == ("acc", "acc_norm", "acc_token_norm")


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"metric =": "metrik ="}, "unknown key 'metrik'; did you mean 'metric'?"),
        ({"context =": "contxt ="}, "unknown key 'prompt.contxt'; did you mean 'context'?"),
        ({"file =": "fille ="}, "unknown key 'dataset.fille'; did you mean 'file'?"),
        ({"[dataset]": "[datasets]"}, "unknown key 'datasets'; did you mean 'dataset'?"),
        ({'name = "mine"': ""}, "name is needed: a string"),
        ({"version = 1": 'version = "1"'}, "version must be a whole number; found '1'"),
        ({'"choice"': "3"}, "kind '3' is unknown (known: choice, generation, continuation)"),
        ({'kind = "choice"': ""}, "kind is needed: one of choice, generation, continuation"),
        ({"[dataset]": "", 'file = "mine.jsonl"': ""}, "a table [dataset] is needed"),
        ({"[prompt]": "[groups]\nall = ['a', 1]\n[prompt]"}, "groups.all must be a list of subjects; found ['a', 1]"),
        ({'metric = "acc"': "columns = 3"}, "columns must be a table; found 3"),
        ({'metric = "acc"': 'path = "x"'}, "unknown key 'path'"),
        ({'"choice"': '"generate"'}, "kind 'generate' is unknown; did you mean 'generation'?"),
        ({'"acc"': '"acc_nrom"'}, "metric 'acc_nrom' is unknown; did you mean 'acc_norm'?"),
        ({'metric = "acc"': 'metric = "acc"\nmetrics = ["acc_norm"]'}, "metric 'acc' must be one of metrics"),
        ({'metric = "acc"': "metrics = 5"}, "metrics must be a list of names; found 5"),
        ({'metric = "acc"': "metrics = []"}, "metrics must be a list of names; found []"),
        ({'metric = "acc"': 'metrics = "acc"'}, "metrics must be a list of names; found 'acc'"),
        ({'file = "mine.jsonl"': ""}, "[dataset] needs either 'repo' (with config and split) or 'file'"),
        ({"file =": 'repo = "a/b"\nfile ='}, "[dataset] needs either 'repo'"),
        ({'"mine.jsonl"': "3"}, "dataset.file must be a string; found 3"),
        ({'"mine.jsonl"': '"other.jsonl"'}, "other.jsonl does not exist"),
        ({'"{{ question }}"': "5"}, "prompt.context must be a template or a list of templates; found 5"),
        ({'"{{ question }}"': "[]"}, "prompt.context must be a template or a list of templates; found []"),
        ({'"options"': "5"}, "prompt.choices must be a list of templates or an expression; found 5"),
        ({'"options"': '["a", 1]'}, "prompt.choices must be a list of templates or an expression; found ['a', 1]"),
        ({'"{{ question }}"': '["x", "y"]', '"options"': '["a", "b", "c"]'}, "has 2 templates for 3 choices"),
        ({'"answer"': "1.5"}, "prompt.gold must be an expression"),
        ({'"{{ number }}"': "7"}, "prompt.id must be a string; found 7"),
        ({'gold = "answer"': 'gold = "answer"\ndelimiter = 1'}, "prompt.delimiter must be a string; found 1"),
        ({'name = "mine"': "name = mine"}, "not valid TOML"),
        ({"[prompt]": "[columns]\nquestion = 1\n[prompt]"}, "columns.question must be a string such as"),
        (
            {"[prompt]": "[columns]\nquestion = 'txt'\n[prompt]"},
            "columns.question 'txt' is unknown; did you mean 'text'?",
        ),
        ({"{{ question }}": "{{ question"}, "template error"),
        ({"{{ question }}": "{{ question | reverze }}"}, "template error: No filter named 'reverze'"),
        ({'"options"': '"options["'}, "template error"),
    ],
)
def test_wrong_task_files(tmp_path: Path, edits: dict[str, str], message: str) -> None:
    path = write_task(tmp_path, edits=edits)
    assert message in (found := refusal(path)), found
    assert str(path) in found


def test_one_context_for_each_choice_of_an_expression(tmp_path: Path) -> None:
    path = write_task(tmp_path, edits={'"{{ question }}"': '["x", "y"]'})
    (item,) = items_of(path)
    assert [item.pair(i) for i in (0, 1)] == [("x", " a"), ("y", " b")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 2}, "row 0 (item '1'): gold index 2 is out of range; 0 to 1 is needed"),
        ({"answer": -1}, "gold index -1 is out of range"),
        ({"answer": "b"}, "gold must be the right choice's index; found 'b'"),
        ({"answer": True}, "gold must be the right choice's index; found True"),
        ({"options": ["a"]}, "two choices or more are needed, as strings; found ['a']"),
        ({"options": ["a", None]}, "two choices or more are needed, as strings; found ['a', None]"),
        ({"options": "ab"}, "two choices or more are needed, as strings; found 'ab'"),
    ],
)
def test_wrong_rows(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    assert message in (found := refusal(write_task(tmp_path, rows=[GOOD | change]))), found


def test_missing_columns_name_the_columns_there_are(tmp_path: Path) -> None:
    row = {key: value for key, value in GOOD.items() if key != "question"}
    message = refusal(write_task(tmp_path, rows=[GOOD | {"number": 2}, row]))
    assert "row 1: 'question' is undefined; the dataset's columns are: answer, number, options" in message
    for old in ('"options"', '"answer"'):
        message = refusal(write_task(tmp_path, rows=[GOOD], edits={old: '"absent"'}))
        assert "'absent' is undefined; the dataset's columns are: answer, number, options, question" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"number": 1\n', "mine.jsonl:1: not valid JSON"),
        (json.dumps(GOOD) + "\n\n{]\n", "mine.jsonl:3: not valid JSON"),
        (json.dumps(GOOD) + "\n[1]\n", "mine.jsonl:2: a JSON object is needed on each line; found '[1]"),
        ("", "the dataset has no rows"),
        ("\n \n", "the dataset has no rows"),
    ],
)
def test_wrong_json_lines(tmp_path: Path, text: str, message: str) -> None:
    assert message in (found := refusal(write_task(tmp_path, rows=text))), found


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    (tmp_path / "mine.jsonl").write_bytes(b'{"number": "\xff"}\n')
    assert "JSON Lines in UTF-8 is needed" in refusal(path)
    path.write_bytes(b'name = "\xff"')
    assert "can't be read" in refusal(path)


def test_ids_must_be_unique(tmp_path: Path) -> None:
    assert "two items have the id '1'; ids must be unique" in refusal(write_task(tmp_path, rows=[GOOD, GOOD]))
    rows = [GOOD, GOOD | {"number": 2}]
    assert len({item.hash for item in items_of(write_task(tmp_path, rows=rows))}) == 2


def test_a_column_may_have_any_name(tmp_path: Path) -> None:
    (item,) = items_of(write_task(tmp_path, rows=[GOOD | {"self": "x", "ask-for": "y", "args": 1}]))
    assert item.contexts == ("Q",)


def test_a_parquet_file_beside_the_task(tmp_path: Path) -> None:
    path = write_task(tmp_path, edits={"mine.jsonl": "mine.parquet"})
    data = tmp_path / "mine.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([GOOD, GOOD | {"number": 2}]), data)
    assert [item.id for item in items_of(path)] == ["1", "2"]
    whole = data.read_bytes()
    for size in (0, 4, len(whole) // 2, len(whole) - 1):
        data.write_bytes(whole[:size])
        assert "mine.parquet: not a usable Parquet file" in refusal(path)


def test_a_mirror_reads_all_files_of_a_split_in_order(tmp_path: Path) -> None:
    path = write_task(tmp_path, edits={'file = "mine.jsonl"': 'repo = "a/b"\nconfig = "c"\nsplit = "s"'})
    task = load_task(path)
    with pytest.raises(TaskError, match="no Parquet files; put the split of a/b there or leave --mirror out"):
        load_items(task, fetch=mirror(tmp_path))
    split = tmp_path / "datasets" / "a" / "b" / "c" / "s"
    split.mkdir(parents=True)
    for number in (1, 0):
        table = pyarrow.Table.from_pylist([GOOD | {"number": number}])
        pyarrow.parquet.write_table(table, split / f"000{number}.parquet")
    assert [item.id for item in load_items(task, fetch=mirror(tmp_path))] == ["0", "1"]


@pytest.mark.parametrize(
    "template",
    [
        "{{ question.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ question['__class__'] }}",
        "{{ question | attr('__class__') }}",
        "{{ '{0.__class__}'.format(question) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ options.append('c') }}",
        "{{ self.__init__.__globals__ }}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_templates_can_not_leave_their_sandbox(tmp_path: Path, template: str) -> None:
    message = refusal(write_task(tmp_path, edits={"{{ question }}": template}))
    assert "class 'str'" not in message
    assert "row 0" in message


@pytest.mark.parametrize("expression", ["options.__class__.__mro__", "[options.__class__, 'b']", "options.clear()"])
def test_expressions_can_not_leave_their_sandbox(tmp_path: Path, expression: str) -> None:
    assert "row 0" in refusal(write_task(tmp_path, edits={'"options"': f'"{expression}"'}))


# Choosing rows and finding tasks


@given(count=st.integers(1, 200), limits=st.tuples(st.integers(0, 220), st.integers(0, 220)), seed=st.integers(0, 5))
def test_smaller_limits_ask_a_subset(count: int, limits: tuple[int, int], seed: int) -> None:
    smaller, larger = (chosen_rows(count, limit, seed) for limit in sorted(limits))
    assert set(smaller) <= set(larger) <= set(range(count))
    for limit, rows in zip(sorted(limits), (smaller, larger), strict=True):
        assert len(rows) == min(limit, count)
        assert rows == sorted(set(rows))


def test_rows_are_chosen_by_the_seed() -> None:
    assert chosen_rows(10, None, 0) == list(range(10))
    assert chosen_rows(100, 10, 0) == chosen_rows(100, 10, 0) != chosen_rows(100, 10, 1)
    assert chosen_rows(100, 5, 0) == [15, 44, 46, 87, 99]  # pinned: another choice would ask a stored study anew
    drawn = Counter(row for seed in range(400) for row in chosen_rows(20, 5, seed))
    assert min(drawn.values()) > 60  # every row is drawn about 100 times
    assert max(drawn.values()) < 140


def test_a_limit_keeps_the_items(tmp_path: Path) -> None:
    path = write_task(tmp_path, rows=[GOOD | {"number": number} for number in range(30)])
    whole = {item.id: item.hash for item in items_of(path)}
    part = load_items(load_task(path), fetch=no_fetch, limit=7, seed=3)
    assert len(part) == 7
    assert all(whole[item.id] == item.hash for item in part)


def test_tasks_are_found_by_name_suite_and_path(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    tasks = find_tasks(["everyday", "offline", str(path), "everyday"])
    assert [task.name for task in tasks] == ["everyday", *[n for n in suites()["offline"] if n != "everyday"], "mine"]
    assert len(find_tasks(["commonsense"])) == 10
    assert tasks_folder() == TASKS


def test_tasks_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown task 'helaswag'; did you mean 'hellaswag'?"):
        find_tasks(["helaswag"])
    with pytest.raises(UsageError, match="did you mean 'commonsense'?"):
        find_tasks(["comonsense"])
    with pytest.raises(TaskError, match=r"absent.toml: no such task file"):
        find_tasks([str(tmp_path / "absent.toml")])
    (tmp_path / "a").mkdir()
    both = [str(write_task(tmp_path)), str(write_task(tmp_path / "a"))]
    with pytest.raises(UsageError, match="two tasks are named 'mine'"):
        find_tasks(both)


# Metrics


def test_each_metric_has_a_normalisation_of_its_own() -> None:
    scores = ChoiceScores(logprobs=(-4.0, -5.0, -6.0), token_counts=(1, 5, 2), character_counts=(4, 4, 20))
    # sums -4 -5 -6; by characters -1 -1.25 -0.3; by tokens -4 -1 -3
    assert picks(scores) == {"acc": 0, "acc_norm": 2, "acc_token_norm": 1, "mc2": 0, "all_gold": 0}
    assert set(picks(ChoiceScores((-1.0, -1.0), (1, 1), (2, 2))).values()) == {0}
    assert set(picks(ChoiceScores((-1.0, -0.5), (0, 0), (0, 0))).values()) == {1}


def test_broken_scores_are_told_apart() -> None:
    assert is_finite(ChoiceScores((-1.0, -2.0), (1, 1), (1, 1)))
    for broken in (float("nan"), float("-inf"), float("inf")):
        assert not is_finite(ChoiceScores((-1.0, broken), (1, 1), (1, 1)))
