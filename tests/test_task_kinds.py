"""Few-shot examples, subjects, and the kinds of tasks that are not multiple choice."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import pyarrow
import pyarrow.parquet
import pytest
from builders import write_rows
from hypothesis import given
from hypothesis import strategies as st

from gguf_eval.errors import TaskError, UsageError
from gguf_eval.study.plan import requested_tasks
from gguf_eval.study.points import RunRequest
from gguf_eval.tasks.aggregates import Answered, macro_f1, perplexity
from gguf_eval.tasks.datasets import load_items, mirror
from gguf_eval.tasks.metrics import CHOICE_METRICS, ChoiceScores, chance, overshadowed, values
from gguf_eval.tasks.prompts import Item
from gguf_eval.tasks.spec import load_task, with_shots

GENERATION = """
name = "sums"
version = 1
kind = "generation"
metric = "exact_match"

[dataset]
file = "rows.jsonl"

[prompt]
context = "Q: {{ question }}\\nA:"
references = "answer"

[generation]
stop = ["\\n"]
max_tokens = 8

[judge]
name = "exact_match"
"""
SUMS = [{"question": f"{n}+{n}", "answer": str(2 * n)} for n in range(12)]


def items_of(folder: Path, text: str, rows: Sequence[dict[str, Any]] = SUMS, **options: Any) -> list[Item]:
    (folder / "task.toml").write_text(text, encoding="utf-8")
    write_rows(folder / "rows.jsonl", rows)
    return load_items(load_task(folder / "task.toml"), fetch=mirror(folder), **options)


def message_of(folder: Path, text: str, rows: Sequence[dict[str, Any]] = SUMS) -> str:
    with pytest.raises(TaskError) as caught:
        items_of(folder, text, rows)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def put_split(folder: Path, config: str, split: str, rows: Sequence[dict[str, Any]]) -> None:
    place = folder / "datasets" / "a" / "b" / config / split
    place.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), place / "0000.parquet")


def test_a_generation_task(tmp_path: Path) -> None:
    items = items_of(tmp_path, GENERATION)
    assert items[3].context() == "Q: 3+3\nA:"
    assert (items[3].choices, items[3].golds, items[3].references) == ((), (), ("6",))
    task = load_task(tmp_path / "task.toml")
    assert task.generation is not None
    assert task.judge is not None
    assert (task.generation.stop, task.generation.max_tokens, task.generation.temperature) == (("\n",), 8, 0.0)
    assert (task.judge.name, task.metrics) == ("exact_match", ("exact_match",))


def test_a_continuation_task(tmp_path: Path) -> None:
    text = GENERATION[: GENERATION.index("[generation]")]
    text = text.replace('"generation"', '"continuation"').replace('"exact_match"', '"acc"')
    text = text.replace('references = "answer"', 'target = "{{ answer }}"').replace(
        "[dataset]", 'aggregates = ["perplexity"]\n[dataset]', 1
    )
    items = items_of(tmp_path, text)
    assert items[3].pair(0) == ("Q: 3+3\nA:", " 6")
    assert load_task(tmp_path / "task.toml").aggregates == ("perplexity",)


def test_first_examples_never_the_item_itself(tmp_path: Path) -> None:
    rows = "".join(f'[[fewshot.examples]]\nquestion = "{r["question"]}"\nanswer = "{r["answer"]}"\n' for r in SUMS[:4])
    items = items_of(tmp_path, GENERATION + "[fewshot]\ncount = 2\n" + rows)
    assert items[5].context() == "Q: 0+0\nA: 0\n\nQ: 1+1\nA: 2\n\nQ: 5+5\nA:"
    assert items[0].context() == "Q: 1+1\nA: 2\n\nQ: 2+2\nA: 4\n\nQ: 0+0\nA:"
    none = with_shots(load_task(tmp_path / "task.toml"), 0)
    assert load_items(none, fetch=mirror(tmp_path))[5].context() == "Q: 5+5\nA:"
    assert none.hash != load_task(tmp_path / "task.toml").hash
    assert none.title == "sums, 0-shot"


def test_another_number_of_examples_for_a_run(tmp_path: Path) -> None:
    rows = "".join(f'[[fewshot.examples]]\nquestion = "{r["question"]}"\nanswer = "{r["answer"]}"\n' for r in SUMS[:4])
    items_of(tmp_path, GENERATION + "[fewshot]\ncount = 2\n" + rows)
    names = (str(tmp_path / "task.toml"), "grammar")
    request = RunRequest(models=(), study=tmp_path / "s.sqlite", tasks=names, fewshot=1)
    shots, without = requested_tasks(request)
    assert shots.fewshot is not None
    assert (shots.fewshot.count, without.fewshot) == (1, None)
    usual, _ = requested_tasks(replace(request, fewshot=2))
    assert usual == load_task(tmp_path / "task.toml")
    with pytest.raises(UsageError, match="--fewshot needs a task that has examples; none of grammar has any"):
        requested_tasks(replace(request, tasks=("grammar",)))


def test_random_examples_are_seeded_and_do_not_depend_on_the_limit(tmp_path: Path) -> None:
    put_split(tmp_path, "default", "test", SUMS)
    put_split(tmp_path, "default", "train", [{"question": f"{n}+1", "answer": str(n + 1)} for n in range(50)])
    text = GENERATION.replace('file = "rows.jsonl"', 'repo = "a/b"')
    each = text + '[fewshot]\ncount = 3\nsplit = "train"\nsampler = "random_per_item"\n'
    items = items_of(tmp_path, each)
    generator = random.Random(1234)
    for item in items:
        expected = [f"Q: {n}+1\nA: {n + 1}\n\n" for n in generator.sample(range(50), 3)]
        assert item.header.text == "".join(expected)
    some = items_of(tmp_path, each, limit=4)
    assert {item.hash for item in some} <= {item.hash for item in items}
    shared = items_of(tmp_path, each.replace("random_per_item", "random"))
    assert {item.header.text for item in shared} == {items[0].header.text}


def test_subjects_configs_and_descriptions(tmp_path: Path) -> None:
    for config in ("one", "two"):
        put_split(tmp_path, config, "test", [r | {"answer": config} for r in SUMS[:3]])
        put_split(tmp_path, config, "dev", [r | {"answer": config} for r in SUMS[4:6]])
    text = GENERATION.replace('file = "rows.jsonl"', 'repo = "a/b"\nconfigs = ["one", "two"]').replace(
        "context =", 'description = "About {{ dataset_config }}.\\n"\nsubject = "{{ dataset_config }}"\ncontext ='
    )
    items = items_of(tmp_path, text + '[fewshot]\ncount = 1\nsplit = "dev"\n[groups]\nall = ["one", "two"]\n')
    assert [(item.id, item.subject) for item in items[2:4]] == [("one/2", "one"), ("two/0", "two")]
    assert items[3].context() == "About two.\nQ: 4+4\nA: two\n\nQ: 0+0\nA:"
    assert load_task(tmp_path / "task.toml").groups == {"all": ("one", "two")}


def test_rows_left_out(tmp_path: Path) -> None:
    text = GENERATION.replace("[prompt]", "where = \"question.startswith('1')\"\n[prompt]")
    assert [item.id for item in items_of(tmp_path, text)] == ["1", "10", "11"]
    message = message_of(tmp_path, text.replace("'1'", "'x'"))
    assert "dataset.where leaves none of 12 rows" in message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('references = "answer"', 'gold = "0"', "prompt.references is needed for kind 'generation'"),
        ("references =", 'gold = "0"\nreferences =', "prompt.gold means nothing for kind 'generation'"),
        ("[judge]", "[judges]", "unknown key 'judges'; did you mean 'judge'?"),
        ('name = "exact_match"', 'name = "exact_mtach"', "judge.name 'exact_mtach' is unknown; did you mean"),
        ("max_tokens = 8", "max_tokens = 0", "generation.max_tokens must be a whole number, 1 or more; found 0"),
        ('["\\n"]', '[""]', "generation.stop must be a list of strings"),
        ("stop =", 'chat_stop = "x"\nstop =', "generation.chat_stop must be a list of strings; found 'x'"),
        ("references =", 'terminator = "."\nreferences =', "prompt.terminator means nothing for kind 'generation'"),
        ("max_tokens = 8", "top_p = 1.5", "generation.top_p must be above 0 and at most 1"),
        ("[judge]", "[fewshot]\ncount = 1\n[judge]", "[fewshot] needs one of 'split', 'file' and 'examples'"),
        ("[judge]", '[fewshot]\ncount = 1\nfile = "x.jsonl"\n[judge]', "fewshot.file"),
        ("[judge]", '[fewshot]\ncount = 12\nfile = "rows.jsonl"\n[judge]', "12 few-shot examples are asked for and"),
        ('"answer"', '"none"', "prompt.references gave None"),
        ('"answer"', '"[]"', "prompt.references gave none"),
    ],
)
def test_wrong_files_of_the_other_kinds(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GENERATION
    assert message in (found := message_of(tmp_path, GENERATION.replace(old, new))), found


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", 'question,answer\n"1, 1",x\n2,y\n'),
        ("rows.json", '[{"question": "1, 1", "answer": "x"}, {"question": "2", "answer": "y"}]'),
    ],
)
def test_rows_of_other_formats(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    items = items_of(tmp_path, GENERATION.replace("rows.jsonl", name))
    assert [(item.contexts[0], item.references) for item in items] == [("Q: 1, 1\nA:", ("x",)), ("Q: 2\nA:", ("y",))]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "question,answer\n1,x\n2\n", "rows.csv:3: 2 columns are needed"),
        ("rows.csv", 'question,answer\n1,"x\n', "not valid CSV"),
        ("rows.json", '[{"question": 1},\n]', "rows.json:2: not valid JSON"),
        ("rows.json", '{"question": 1}', "a JSON list of objects is needed"),
        ("rows.txt", "x", "must end in .jsonl, .json, .csv, .parquet"),
    ],
)
def test_wrong_rows_of_other_formats(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert message in (found := message_of(tmp_path, GENERATION.replace("rows.jsonl", name))), found


CHOICE = """
name = "kin"
version = 1
kind = "choice"
metric = "acc"
[dataset]
file = "rows.jsonl"
[prompt]
context = "{{ who }} is the"
choices = CHOICES
gold = "gold"
terminator = "."
"""


@pytest.mark.parametrize("choices", ['["son", "son-in-law"]', '"kin"'])
def test_a_terminator_ends_every_choice(tmp_path: Path, choices: str) -> None:
    """Also where a few-shot example shows the right one; what is no list of texts is refused as before."""
    rows = [
        {"who": "Bo", "kin": ["son", "son-in-law"], "gold": 1},
        {"who": "Al", "kin": ["son", "son-in-law"], "gold": 0},
    ]
    text = CHOICE.replace("CHOICES", choices)
    first, _ = items_of(tmp_path, text + '[fewshot]\ncount = 1\nfile = "rows.jsonl"\n', rows)
    assert first.context() == "Al is the son.\n\nBo is the"
    assert [first.pair(place)[1] for place in (0, 1)] == [" son.", " son-in-law."]
    if choices == '"kin"':
        assert "two choices or more are needed" in message_of(tmp_path, text, [rows[0] | {"kin": "son"}])
        assert "two choices or more are needed" in message_of(tmp_path, text, [rows[0] | {"kin": [1, 2]}])


def test_several_right_choices() -> None:
    scores = ChoiceScores((-1.0, -2.0, -3.0), (1, 1, 1), (1, 1, 1))
    assert values(scores, (0, 1))["all_gold"] == 1.0
    assert values(scores, (0, 2))["all_gold"] == 0.0
    assert values(scores, (0, 2))["acc"] == 1.0
    assert values(scores, (0, 2))["mc2"] == pytest.approx((1 + 0.1353352832) / (1 + 0.3678794412 + 0.1353352832))


@pytest.mark.parametrize("golds", [(0,), (1,), (0, 1), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("choices", [3, 4])
def test_chance_is_the_mean_over_every_order_of_the_choices(choices: int, golds: tuple[int, ...]) -> None:
    """By enumeration: a guess is an order of the choices, each as likely."""
    orders = list(itertools.permutations(range(choices)))
    lengths = (1,) * choices
    for metric in CHOICE_METRICS:
        if metric == "mc2":  # a share, which depends on how sure a guess is: here each choice is as likely
            found = [values(ChoiceScores((-1.0,) * choices, lengths, lengths), golds)[metric]]
        else:
            found = [values(ChoiceScores(tuple(-1.0 - r for r in o), lengths, lengths), golds)[metric] for o in orders]
        assert chance(metric, choices, len(golds)) == pytest.approx(sum(found) / len(found)), metric


@given(st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=2, max_size=6))
def test_a_choice_that_another_begins_is_found(choices: list[str]) -> None:
    expected = any(b != a and b.startswith(a) for a in choices for b in choices)
    for metric in CHOICE_METRICS:
        found = overshadowed(metric, choices)
        assert (found is not None) == (expected and metric not in ("acc_norm", "acc_token_norm"))
        if found is not None:
            assert found[0] != found[1]
            assert found[1].startswith(found[0])
        assert overshadowed(metric, [choice + "." for choice in choices]) is None


def test_chance_of_a_task_with_all_gold() -> None:
    """TimeDial: two of four, or one of three."""
    items = {
        key: replace(item, choices=("a",) * (3 + len(golds) // 2), golds=golds)
        for (key, item), golds in zip(builders.items("i", 2).items(), [(0, 1), (0,)], strict=True)
    }
    task = builders.task("timedial", metric="all_gold", metrics=("all_gold",), items=items)
    assert list(task.chances.values()) == pytest.approx([1 / 6, 1 / 3])
    assert list(replace(task, metric="acc").chances.values()) == pytest.approx([1 / 2, 1 / 3])


def test_aggregates() -> None:
    assert perplexity([Answered(logprobs=(-1.0,)), Answered(logprobs=(-3.0,))]) == pytest.approx(7.38905609893)
    answers = [Answered(pick=p, gold=g, logprobs=(0.0, 0.0, 0.0)) for p, g in [(0, 0), (0, 1), (1, 1)]]
    assert macro_f1(answers) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
