"""What templates and patterns of strangers may take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from builders import write_rows

from gguf_eval.errors import EngineError, TaskError, UsageError
from gguf_eval.files.recipes import Recipe
from gguf_eval.llama import bounded
from gguf_eval.llama.bounded import OverLimitError, bounded_call, bounded_map
from gguf_eval.runtime.chat_template import render_template
from gguf_eval.study.stages.generate import outcome
from gguf_eval.study.stages.state import TaskItems
from gguf_eval.tasks.checking import check_task
from gguf_eval.tasks.datasets import load_items
from gguf_eval.tasks.prompts import make_item
from gguf_eval.tasks.spec import load_task

LOOP = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
TASK = """
name = "sums"
version = 1
kind = "generation"
metric = "exact_match"
[dataset]
file = "rows.jsonl"
[prompt]
context = '''{CONTEXT}'''
references = "answer"
[generation]
max_tokens = 4
[judge]
name = "regex"
options = { pattern = '(a+)+$' }
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 2.0)
    monkeypatch.setattr(bounded, "MEMORY_BYTES", 128 << 20)


def task_file(folder: Path, context: str) -> Path:
    write_rows(folder / "rows.jsonl", [{"question": f"{n}", "answer": "aa"} for n in range(4)])
    (folder / "sums.toml").write_text(TASK.replace("{CONTEXT}", context), encoding="utf-8")
    return folder / "sums.toml"


def no_hub(repo: str, config: str, split: str) -> list[Path]:
    raise AssertionError("nothing is fetched")


def test_a_call_has_its_result_and_its_error() -> None:
    assert bounded_call(divmod, 7, 2) == (3, 1)
    with pytest.raises(TaskError, match="no such task"):
        bounded_call(_refuse, "no such task")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        bounded_call(divmod, 7, 0)


def _refuse(message: str) -> None:
    raise TaskError(message)


def _hold(size_bytes: int) -> None:
    held = b"a" * size_bytes
    time.sleep(60 if held else 0)


def _sleeper() -> Callable[[float], None]:
    return time.sleep


def test_what_goes_over_a_limit_is_one_failure_among_the_others() -> None:
    found = bounded_map(_sleeper, (), [0, 60, 0])
    assert [type(value) for value in found] == [type(None), OverLimitError, type(None)]
    assert "it took more than 2 s" in str(found[1])
    with pytest.raises(OverLimitError, match="it (took|asked for) more than 128 MiB"):
        bounded_call("a".__mul__, 4 << 30)
    with pytest.raises(OverLimitError, match="it took more than 128 MiB"):
        bounded_call(_hold, 200 << 20)  # less than the system refuses
    with pytest.raises(OverLimitError, match="has ended"):
        bounded_call(os._exit, 1)
    assert bounded_call(len, "abc") == 3


def test_a_process_that_others_ended_is_no_fault_of_the_next_call() -> None:
    pid = bounded_call(os.getpid)
    psutil.Process(pid).kill()
    deadline = time.monotonic() + 10
    while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    assert bounded_call(os.getpid) != pid


def test_results_of_a_call_are_bounded_together() -> None:
    found = bounded_map(_of_size, (), [50 << 20] * 5)
    assert [isinstance(value, OverLimitError) for value in found] == [False] * 3 + [True] * 2
    assert "takes more than 128 MiB together" in str(found[3])


def _of_size() -> Callable[[int], bytes]:
    return bytes


def test_it_ends_when_its_parent_was_killed_in_a_search() -> None:
    code = (
        "from gguf_eval.llama import bounded; bounded.SECONDS = 1.0\nimport re\nbounded.bounded_call(len, '')\n"
        "print(flush=True)\nbounded.bounded_call(re.search, '(a+)+$', 'a' * 60 + 'b')"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        helpers = psutil.Process(parent.pid).children(recursive=True)
        time.sleep(0.3)  # it searches
        parent.kill()
    assert helpers
    assert not psutil.wait_procs(helpers, timeout=10)[1]


@pytest.mark.parametrize(
    "template", [LOOP, *("{% set c = 'a' %}{% set n = 10**10 %}" + text for text in
                         ("{{ c * n }}", "{{ ('%' ~ n ~ 'd')|format(1) }}", "{{ c|center(n) }}"))]
)  # fmt: skip
def test_templates_of_tasks_and_models_are_stopped(template: str, tmp_path: Path) -> None:
    bounded_call(len, "")  # the first call may take longer
    task = load_task(task_file(tmp_path, "{% if question == '2' %}" + template + "{% endif %}{{ question }}"))
    with pytest.raises(TaskError, match=r"row 2: the template (was stopped: it (took|asked for) more than|failed: )"):
        load_items(task, fetch=no_hub)
    (problem,) = check_task(task, fetch=no_hub).problems
    assert problem.startswith(f"{tmp_path / 'rows.jsonl'}:3: the template ")
    with pytest.raises(Exception, match="was stopped: it (took|asked for) more than|Error: ") as raised:
        render_template(template, [{"role": "user", "content": "x"}], {}, add_generation_prompt=True)
    assert isinstance(raised.value, EngineError) or "Error" in str(raised.value)


def test_a_template_that_can_not_be_compiled_in_time_is_refused(tmp_path: Path) -> None:
    bounded_call(len, "")
    task = load_task(task_file(tmp_path, "{{ 9 ** (9 ** 8) }}"))  # Jinja computes what is constant
    with pytest.raises(TaskError, match="compiling a template was stopped: it took more than 2 s"):
        load_items(task, fetch=no_hub)


def test_after_a_few_the_rest_is_given_up() -> None:
    found = bounded_map(_sleeper, (), [60] * 5)
    assert [str(error)[:15] for error in found] == ["it took more th"] * 3 + ["it was not trie"] * 2


def test_a_pattern_that_hangs_leaves_its_answer_unscored(tmp_path: Path) -> None:
    task = load_task(task_file(tmp_path, "{{ question }}"))
    item = make_item("0", ("q",), (), (), "", references=("aa",))
    row = {
        "item": item.hash,
        "finish_reason": "eog",
        "seconds": 1.0,
        "tokens": 1,
        "unscored_reason": None,
        "thought": "",
    }
    asked = TaskItems(task, {item.hash: item})
    stopped = outcome(asked, {**row, "text": "a" * 40 + "b"})
    assert stopped.value is None
    assert (stopped.unscored_reason or "").startswith("the judge 'regex' was stopped: it took more than")
    assert outcome(asked, {**row, "text": "aa"}).value == 1.0


def test_what_leads_up_to_an_answer_may_hang_too(tmp_path: Path) -> None:
    path = task_file(tmp_path, "{{ question }}")
    path.write_text(path.read_text().replace("pattern = '(a+)+$'", "pattern = 'a', after = '(a+)+$'"), encoding="utf-8")
    item = make_item("0", ("q",), (), (), "", references=("aa",))
    row = {"item": item.hash, "finish_reason": "stop", "seconds": 1.0, "tokens": 1, "unscored_reason": None,
           "thought": "", "text": "a" * 40 + "b"}  # fmt: skip
    found = outcome(TaskItems(load_task(path), {item.hash: item}), row)
    assert (found.unscored_reason or "").startswith("the judge 'regex' was stopped: it took more than")


def test_a_value_that_is_no_data_is_an_error_of_its_row(tmp_path: Path) -> None:
    path = task_file(tmp_path, "{{ question }}")
    path.write_text(path.read_text().replace('references = "answer"', 'references = "[lipsum]"'), encoding="utf-8")
    with pytest.raises(TaskError, match="row 0"):
        load_items(load_task(path), fetch=no_hub)


def test_a_recipes_pattern_that_hangs_is_refused() -> None:
    recipe = Recipe("mine", "Q4_0", tensor_types=(("(a+)+$", "Q8_0"),))
    with pytest.raises(UsageError, match="recipe mine: its patterns can't be matched: it took more than"):
        recipe.unmatched_patterns(["a" * 60 + "b"])
    assert recipe.unmatched_patterns(["b"]) == ("(a+)+$",)
    with pytest.raises(UsageError, match="its patterns can't be matched"):
        recipe.unmatched_patterns(["a", "a" * 60 + "b"])  # llama.cpp would search the second name too


def test_rows_go_there_and_back_unchanged(tmp_path: Path) -> None:
    items = load_items(load_task(task_file(tmp_path, "{{ question }}")), fetch=no_hub)
    assert [item.contexts for item in items] == [(f"{n}",) for n in range(4)]
    assert json.loads(json.dumps([item.references for item in items])) == [["aa"]] * 4
