"""Answers where there is little: in a narrow terminal every figure stays whole, in any code page every character."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import AS_TERMINAL, printed
from cli_process import COMMAND
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from synthetic_study import write_study

from gguf_eval.analysis.advice import Limits, advise
from gguf_eval.analysis.divergence import summarise_text
from gguf_eval.analysis.versus import versus_references
from gguf_eval.report.quality import print_advice, print_comparisons, print_texts
from gguf_eval.report.tables import TableColumn, packed, width_of
from gguf_eval.report.tasks import print_tasks
from gguf_eval.store.read import read_study
from gguf_eval.store.records import StudyRecord
from gguf_eval.tasks.catalog import find_tasks, suites, task_names


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    path = tmp_path_factory.mktemp("narrow") / "s.sqlite"
    return read_study(write_study(path, levels=3, sizes=2, tasks=3, items=60, texts=1))


def in_terminal(show: Callable[[Console], None], width: int) -> str:
    return printed(show, width, **AS_TERMINAL)


def shown(study: StudyRecord) -> dict[str, Callable[[Console], None]]:
    texts = [(point.name, summarise_text(text)) for point in study.points for text in point.texts]
    return {
        "compare": lambda console: print_comparisons(versus_references(study), console),
        "recommend": lambda console: print_advice(advise(study, Limits(memory_bytes=2_000_000_000)), console),
        "perplexity": lambda console: print_texts(texts, console),
        "tasks": lambda console: print_tasks(find_tasks(task_names()), suites(), console),
    }


@pytest.mark.parametrize("width", [80, 100])
def test_nothing_is_cut(study: StudyRecord, width: int) -> None:
    for name, show in shown(study).items():
        text = in_terminal(show, width)
        assert "…" not in text, name
        assert max(map(cell_len, text.splitlines())) <= width, name


def test_what_is_remarked_of_points_has_lines_of_its_own_where_the_table_has_no_room(study: StudyRecord) -> None:
    show = shown(study)["recommend"]
    narrow, wide = (in_terminal(show, width) for width in (80, 160))
    assert "remarks" not in narrow and "remarks" in wide
    assert ": recommended; on the Pareto front." in " ".join(narrow.split())
    assert "Least memory within 1 point of" in " ".join(narrow.split())


def test_descriptions_of_tasks_keep_their_room(study: StudyRecord) -> None:
    show = shown(study)["tasks"]
    heads = [re.split(" {2,}", in_terminal(show, width).splitlines()[0].strip()) for width in (60, 80, 160)]
    assert heads[0] == ["task", "what it asks"]
    assert heads[1] == ["task", "metric", "what it asks"]
    assert heads[2] == ["task", "metric", "source", "what it asks"]


def test_columns_are_packed_into_tables_that_begin_alike() -> None:
    columns = [TableColumn(name, [Text("7" * 10)]) for name in "abcd"]
    assert width_of(columns) == 46
    tables = packed(columns, 34)
    assert [[str(column.header) for column in table.columns] for table in tables] == [["a", "b", "c"], ["a", "d"]]
    assert len(packed(columns, 46)) == 1


def test_a_pipe_with_a_code_page_gets_every_character(tmp_path: Path) -> None:
    path = write_study(tmp_path / "s.sqlite", levels=2, sizes=1, tasks=1, items=20)
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}  # what Windows gives a pipe
    shown = subprocess.run([*COMMAND, "report", str(path)], capture_output=True, env=environment)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert "95 % interval −" in shown.stdout.decode("utf-8")
