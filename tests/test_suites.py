"""Tasks of the scale-and-precision suite on rows of the data sets' own schemas, and `tasks show` and `check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_process import gguf_eval

from gguf_eval.errors import TaskError
from gguf_eval.tasks.catalog import find_tasks, suites
from gguf_eval.tasks.datasets import load_items, mirror
from gguf_eval.tasks.prompts import Item, item_renderer, plain_rows

ROWS: dict[str, tuple[dict[str, Any], str, Any]] = {
    # task: a made-up row of the schema, the end of its prompt, the right answers (as scored) or references
    "samsum": ({"id": "1", "dialogue": "Ann: Hi\nBo: Bye", "summary": "Bo leaves."}, "Bo: Bye\n\nSummarise the dialogue in one or two sentences.\nSummary:", ["Bo leaves."]),
    "flores_eng_ind": ({"id": 1, "eng_Latn": "A cat.", "ind_Latn": "Seekor kucing."}, "English: A cat.\nIndonesian:", ["Seekor kucing."]),
    "flores_ind_eng": ({"id": 1, "eng_Latn": "A cat.", "ind_Latn": "Seekor kucing."}, "kucing.\nEnglish:", ["A cat."]),
    "flores_eng_jav": ({"id": 1, "eng_Latn": "A cat.", "jav_Latn": "Kucing."}, "A cat.\nJavanese:", ["Kucing."]),
    "nusax": ({"id": "7", "text": "Bagus!", "label": "positive"}, "Text: Bagus!\nSentiment (negative, neutral or positive):", [" positive"]),
    "babi_15": ({"passage": "Cats are afraid of mice.\nAda is a cat.\n", "question": "What is ada afraid of?", "answer": "mouse", "task": 15}, "cat.\nQuestion: What is ada afraid of?\nAnswer:", [" mouse"]),
    "babi_16": ({"passage": "Ada is red.\n", "question": "What color is Bo?", "answer": "gray", "task": 16}, "What color is Bo?\nAnswer:", [" gray"]),
    "babi_17": ({"passage": "A is above B.\n", "question": "Is A above B?", "answer": "yes", "task": 17}, "Is A above B?\nAnswer:", [" yes"]),
    "babi_19": ({"passage": "A is north of B.\n", "question": "How?", "answer": "s,e", "task": 19}, "then east.\nAnswer:", [" s,e"]),
    "entailment_bank": ({"id": "x", "context": "sent1: ice melts sent2: heat melts", "question": "Why?", "answer": "heat", "hypothesis": "h"}, "Facts:\n- ice melts\n- heat melts\nQuestion: Why?\nGive only the answer, in a few words.\nAnswer:", ["heat"]),
    "clutrr": (
        {"id": "x", "story": "[Ada] met her son [Bo].", "query": "('Ada', 'Bo')", "target_text": "son", "clean_story": "", "proof_state": "", "f_comb": "",
         "task_name": "task_1.2", "story_edges": "", "edge_types": "", "query_edge": "", "genders": "", "task_split": "test"},
        "nephew, niece, sister, son, son-in-law, uncle.\nAnswer: Bo is the", [" son."],
    ),
    "alpha_nli": ({"observation_1": "It rained.", "observation_2": "Ann was wet.", "hypothesis_1": "She stayed in.", "hypothesis_2": "She went out.", "label": 2}, "in between?\nAnswer:", [" She went out."]),
    "letter_string_analogies": ({"problem_type": "succ", "source": "a b", "target": "a c", "query": "i j", "answer": "i k"}, "[a b] [a c]\n[i j] [", ["i k"]),
    "timedial": (
        {"id": 1, "conversation": ["A: When?", "B: At <MASK> ."], "correct1": "noon", "correct2": "twelve", "incorrect1": "a year", "incorrect1_rule": "", "incorrect2": "x", "incorrect2_rule": ""},
        "A: When?\nB: At <MASK> .\nQuestion: What does <MASK> stand for?\nAnswer:", [" noon", " twelve"],
    ),
    "stepgame": ({"story": ["A is left of B."], "question": "What is the relation of A to B?", "label": "left", "k_hop": 1}, "A to B? Answer with left, right, above, below, upper-left, upper-right, lower-left, lower-right or overlap.\nAnswer:", [" left."]),
    "pep_3k": ({"subject": "cat", "verb": "eat", "object": "moon\r", "label": 0}, "Event: cat eat moon\nQuestion: Is the event plausible?\nAnswer:", [" no"]),
    "e_care": ({"index": "d-1", "premise": "Ice melts.", "ask-for": "cause", "hypothesis1": "It is cold.", "hypothesis2": "It is hot.", "label": 1}, "most likely cause?\nAnswer:", [" It is hot."]),
    "hotpot_qa": (
        {"id": "5a", "question": "Who?", "answer": "Ada", "type": "bridge", "level": "hard", "supporting_facts": {"title": ["T"], "sent_id": [0]},
         "context": {"title": ["T", "U"], "sentences": [["One.", " Two."], ["Three."]]}},
        "T: One. Two.\nU: Three.\nQuestion: Who?\nGive only the answer, in a few words.\nAnswer:", ["Ada"],
    ),
    "gsm8k_zero_shot": (
        {"question": "Ann has 1 pen and buys 2. How many?", "answer": "1+2=<<1+2=3>>3\n#### 3"},
        "How many?\nSolve it step by step. Write the final number on a last line of its own, after ####.\nAnswer:", ["1+2=<<1+2=3>>3\n#### 3"],
    ),
    "covid_claims": ({"claim": "Masks help.", "evidence": "They do.", "label": "SUPPORTED"}, "support the claim?\nAnswer:", [" yes"]),
}  # fmt: skip


def rendered(name: str, row: dict[str, Any]) -> Item:
    (task,) = find_tasks([name])
    return item_renderer(task)(plain_rows([row])[0], ())


@pytest.mark.parametrize("name", ROWS)
def test_prompts(name: str) -> None:
    row, end, right = ROWS[name]
    item = rendered(name, row)
    assert item.context().endswith(end), item.context()
    if item.choices:
        assert [item.pair(gold)[1] for gold in item.golds] == right
    else:
        assert list(item.references) == right


@pytest.mark.parametrize("name", ROWS)
def test_a_column_that_is_gone_is_named(name: str) -> None:
    row = ROWS[name][0]
    own = {"clutrr": "query", "timedial": "correct1", "hotpot_qa": "context", "e_care": "ask-for"}
    usual = ("dialogue", "eng_Latn", "text", "question", "observation_1", "source", "subject", "claim")
    column = own.get(name) or next(key for key in row if key in usual)
    with pytest.raises(TaskError, match=rf"'{column.replace('-', '_')}' is undefined; the dataset's columns are: "):
        rendered(name, {key: value for key, value in row.items() if key != column})


def test_special_rows() -> None:
    one = rendered("timedial", ROWS["timedial"][0] | {"correct2": "none"})
    assert (one.golds, len(one.choices)) == ((0,), 3)
    assert rendered("nusax", ROWS["nusax"][0] | {"label": 1}).gold == 1
    with pytest.raises(TaskError, match="template failed: ValueError"):
        rendered("covid_claims", ROWS["covid_claims"][0] | {"label": "UNKNOWN"})
    with pytest.raises(TaskError, match="gold index -1 is out of range"):
        rendered("alpha_nli", ROWS["alpha_nli"][0] | {"label": 0})


def test_tasks_of_the_suite_say_where_they_are_from() -> None:
    tasks = find_tasks(suites()["scale-and-precision"])
    assert {task.group for task in tasks} >= {"understanding", "reasoning", "misinformation"}
    for task in tasks:
        assert task.licence
        assert task.paper.startswith("https://")
        assert task.dataset.repo


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ROWS)
def test_real_rows(name: str, shared_data: Path) -> None:
    (task,) = find_tasks([name])
    items = load_items(task, fetch=mirror(shared_data / "hub"))
    assert len({item.id for item in items}) == len(items) > 50
    assert all(item.context().strip() for item in items)


TASK = """
name = "mine"
version = 1
kind = "choice"
metric = "acc"
[dataset]
file = "mine.jsonl"
[prompt]
id = "{{ number }}"
context = "Say {{ word }}:"
choices = "options"
gold = "right"
"""


def test_show_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = {"number": 1, "word": "hi", "options": ["a", "b"], "right": 1}
    rows = [good, good | {"number": 2, "right": 5}, good | {"number": 1}, {"number": 4, "options": [], "right": 0}]
    (tmp_path / "mine.toml").write_text(TASK, encoding="utf-8")
    data = tmp_path / "mine.jsonl"
    data.write_text(json.dumps(good) + "\n", encoding="utf-8")
    shown = gguf_eval("tasks", "show", "mine.toml")
    assert shown.returncode == 0, shown.stderr
    assert "│Say hi:" in shown.stdout
    assert " * 1: ' b'" in shown.stdout
    sound = gguf_eval("tasks", "check", "mine.toml")
    assert (sound.returncode, sound.stdout) == (0, "mine: 1 items, 0 wrong\n")
    data.write_text(json.dumps(good | {"options": ["son", "son-in-law"]}) + "\n", encoding="utf-8")
    shadowed = gguf_eval("tasks", "check", "mine.toml")
    assert shadowed.returncode == 0
    assert "in 1 items a choice begins another ('son', 'son-in-law'), which can't win by acc then" in shadowed.stdout
    (tmp_path / "mine.toml").write_text(TASK + 'terminator = "."\n', encoding="utf-8")
    assert gguf_eval("tasks", "check", "mine.toml").stdout == "mine: 1 items, 0 wrong\n"
    (tmp_path / "mine.toml").write_text(TASK, encoding="utf-8")
    data.write_text("\n".join(["", *map(json.dumps, rows)]), encoding="utf-8")
    wrong = gguf_eval("tasks", "check", "mine.toml")
    assert wrong.returncode == 1
    assert "mine.jsonl:3: (item '2'): gold index 5 is out of range; 0 to 1 is needed" in wrong.stdout
    assert "mine.jsonl:4: prompt.id gives '1', as for row 0 before" in wrong.stdout
    assert "mine.jsonl:5: 'word' is undefined; the dataset's columns are: number, options, right" in wrong.stdout
    assert "mine: 4 items, 3 wrong" in wrong.stdout
