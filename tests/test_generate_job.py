"""A generation task's way through the worker: job, answers, judged outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import write_rows

from gguf_eval.runtime.settings import EngineSettings
from gguf_eval.study.job import decode_job, encode_job
from gguf_eval.study.stages import generate
from gguf_eval.study.stages.ask import task_work
from gguf_eval.study.stages.generate import GenerateJob, outcome
from gguf_eval.study.stages.state import TaskItems
from gguf_eval.tasks.answers import CUT_BEFORE_IT_BEGAN
from gguf_eval.tasks.datasets import load_items, mirror
from gguf_eval.tasks.spec import Generation, load_task

TASK = """
name = "sums"
version = 1
kind = "generation"
metric = "exact_match"

[dataset]
file = "rows.jsonl"

[prompt]
context = "Q: {{ question }} A:"
references = "answer"

[generation]
max_tokens = 5

[judge]
name = "exact_match"
"""


def test_from_items_to_outcomes(tiny_f32: Path, tmp_path: Path) -> None:
    (tmp_path / "sums.toml").write_text(TASK, encoding="utf-8")
    rows = [
        {"question": "1+1", "answer": "2"},
        {"question": "2+2", "answer": "4"},
        {"question": "x" * 500, "answer": "5"},
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    task = load_task(tmp_path / "sums.toml")
    items = load_items(task, fetch=mirror(tmp_path))
    task_items = TaskItems(task, {item.hash: item for item in items})
    job = GenerateJob(
        str(tiny_f32),
        (task_work(task_items),),
        64,
        64,
        1,
        EngineSettings(),
        settings=(Generation(5, ("\n",)),),
    )
    assert decode_job(encode_job(job)) == job
    events: list[dict[str, Any]] = []
    generate.work(job, events.append)
    answers = {row["item"]: row for event in events if event["event"] == "outcomes" for row in event["rows"]}
    outcomes = [outcome(task_items, answers[item.hash]) for item in items]
    assert [o.value is None for o in outcomes] == [False, False, True]
    assert "leave no room in the context of 64" in str(outcomes[2].unscored_reason)
    assert all(o.finish_reason in ("length", "eog", "stop") for o in outcomes[:2])
    right = outcome(task_items, answers[items[0].hash] | {"text": " 2"})
    assert (right.value, right.extracted) == (1.0, "2")
    thinking = answers[items[0].hash] | {"thought": "<think>\nIs it 3?\n</think>\n\n"}
    thought_of = outcome(task_items, thinking | {"text": "2", "finish_reason": "length"})
    assert (thought_of.value, thought_of.text, thought_of.finish_reason) == (1.0, "2", "length")
    assert outcome(task_items, thinking | {"text": "", "finish_reason": "eog"}).value == 0.0
    reason = "unfinished: the thought did not end within 5 tokens"
    cut = outcome(task_items, thinking | {"text": "", "finish_reason": "length", "unscored_reason": reason})
    assert (cut.value, cut.unscored_reason, cut.finish_reason) == (None, reason, "length")
    assert cut.text == thinking["thought"]


def _failing(*rest: Any) -> Any:
    raise ValueError("line2")


def test_what_a_judge_can_not_read_is_one_unscored_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sums.toml").write_text(TASK, encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"question": "1+1", "answer": "2"}\n', encoding="utf-8")
    task = load_task(tmp_path / "sums.toml")
    [item] = load_items(task, fetch=mirror(tmp_path))
    monkeypatch.setattr(generate, "judge_written", _failing)
    row = {"item": item.hash, "text": "2", "finish_reason": "eog", "seconds": 1.0, "tokens": 1, "unscored_reason": None}
    found = outcome(TaskItems(task, {item.hash: item}), row)
    assert (found.value, found.text) == (None, "2")
    assert found.unscored_reason == "the judge 'exact_match' failed: ValueError: line2"


@pytest.mark.parametrize(
    ("text", "finish_reason", "value"),
    [
        (" \n", "stop", None),
        ("", "stop", None),
        ("So the answer is:", "stop", None),
        ("", "eog", 0.0),
        (" \n", "length", 0.0),
        ("3", "stop", 0.0),
        ("The answer is: 3", "stop", 0.0),
        ("So the answer is:", "eog", 0.0),
        ("The answer is: 2", "stop", 1.0),
    ],
)
def test_an_answer_cut_before_it_began_is_not_a_wrong_one(
    tmp_path: Path, text: str, finish_reason: str, value: float | None
) -> None:
    """The task's own stop string hid the answer; a model that ends its answer at once has given a wrong one."""
    (tmp_path / "sums.toml").write_text(TASK + 'options = { after = "answer is:" }\n', encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"question": "1+1", "answer": "2"}\n', encoding="utf-8")
    task = load_task(tmp_path / "sums.toml")
    [item] = load_items(task, fetch=mirror(tmp_path))
    row = {"item": item.hash, "text": text, "finish_reason": finish_reason, "seconds": 1.0, "tokens": 1}
    found = outcome(TaskItems(task, {item.hash: item}), row | {"unscored_reason": None})
    assert (found.value, found.text, found.finish_reason) == (value, text, finish_reason)
    assert (found.unscored_reason == CUT_BEFORE_IT_BEGAN) == (value is None)
