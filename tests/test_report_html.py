"""The web page in a real browser: no errors, no network, charts drawn, sorting and drill-down work, wide and narrow."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Page, browser_page, find_browser
from hostile import TEXTS
from synthetic_study import write_study

from gguf_eval.analysis.summary import summarise
from gguf_eval.report.html import to_html
from gguf_eval.store.read import read_study

pytest.importorskip("altair")
HEADS = "[...document.querySelector('table.sortable').tHead.rows[0].cells]"
FITS = "box => box.scrollWidth <= box.clientWidth"


def write_page(path: Path, **size: Any) -> Path:
    study = read_study(write_study(path.with_suffix(".sqlite"), **size))
    path.write_text(to_html(study, summarise(study)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    size = {"levels": 4, "sizes": 2, "tasks": 5, "items": 60, "texts": 1, "aggregates": ["macro_f1"], "seed": 2}
    return write_page(tmp_path_factory.mktemp("page") / "page.html", **size)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    program = find_browser()
    if program is None:
        pytest.skip("needs Chromium")
    with browser_page(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_the_page_works(page: Page, page_file: Path, width: int, dark: bool) -> None:
    page.problems.clear()
    page.open(page_file, width, dark=dark)
    assert page.problems == []
    charts = page.run("document.querySelectorAll('.chart').length")
    assert charts == 7  # two scatters, divergence, and two for each model
    assert page.run("document.querySelectorAll('.chart[data-drawn] svg').length") == charts
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("[...document.querySelectorAll('.chart')].every(c => c.getAttribute('aria-label').length > 20)")
    assert page.run("document.querySelectorAll('figure table').length") == charts
    assert page.run(f"{HEADS}.map(h => h.textContent)") == [
        "level", "bpw", "file", "peak RAM", "pp512", "tg128", "score", "PPL", "KLD", "against F16",
    ]  # fmt: skip
    if width > 1000:
        assert page.run("[...document.querySelectorAll('main > section > .scroll')].every(FITS)".replace("FITS", FITS))
    for column in (7, 2):
        click = f"{HEADS}[{column}].querySelector('button').click()"
        figures = (
            f"[...document.querySelector('table.sortable').tBodies[0].rows].map(r => +r.cells[{column}].dataset.order)"
        )
        page.run(click)
        ascending = page.run(figures)
        page.run(click)
        assert len(set(ascending)) == 4
        assert ascending == sorted(ascending)
        assert page.run(figures) == ascending[::-1]
    rows = page.run(
        "[...document.querySelector('table.tasks').tBodies[0].rows].map(r => r.cells[0].textContent.trim())"
    )
    assert rows == ["understanding (2 tasks)", "task_00", "task_04", "reasoning (1 task)", "task_01",
                    "misinformation (1 task)", "task_02", "hallucination (1 task)", "task_03",
                    "task_00: macro_f1"]  # fmt: skip
    assert page.run("document.querySelector('thead th[aria-sort]').ariaSort") == "descending"
    assert page.run("document.querySelectorAll('#list article').length") > 0
    assert page.run("[...document.querySelectorAll('#list article')].every(a => a.querySelector('.flip'))")
    page.run("which.value = 'all'; which.dispatchEvent(new Event('input'))")
    assert page.run("document.querySelectorAll('#list article').length") == 20
    page.run("more.click()")
    assert page.run("document.querySelectorAll('#list article').length") == 40
    assert page.run("document.getElementById('count').textContent") == "40 of 60 items shown, 60 asked"


def test_a_dark_page_prints_dark_on_white(page: Page, page_file: Path) -> None:
    page.open(page_file, 1280, dark=True)
    inks = """[...document.querySelectorAll('.chart .role-axis-label text, .chart .role-legend-label text, td')]
        .map(e => getComputedStyle(e)[e.tagName === 'TD' ? 'color' : 'fill'])"""
    assert set(page.run(inks)) == {"rgb(230, 233, 238)"}
    page.call("Emulation.setEmulatedMedia", media="print")
    assert set(page.run(inks)) == {"rgb(0, 0, 0)"}
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.call("Emulation.setEmulatedMedia", media="")


def test_an_item_without_a_question_shows_its_choices_alone(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "page.sqlite"
    write_study(path, levels=2, sizes=1, tasks=1, items=12)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE item SET content = json_remove(content, '$.contexts')")
    connection.close()
    study = read_study(path)
    html = tmp_path / "page.html"
    html.write_text(to_html(study, summarise(study)), encoding="utf-8")
    page.problems.clear()
    page.open(html, 390)
    page.run("which.value = 'all'; which.dispatchEvent(new Event('input'))")
    assert page.problems == []
    assert page.run("document.querySelectorAll('#list article').length") == 12
    assert page.run("document.querySelectorAll('#list article p').length") == 0
    word = page.run("document.querySelector('#list article li').textContent")
    page.run(f"document.getElementById('find').value = {json.dumps(word)}")
    page.run("document.getElementById('find').dispatchEvent(new Event('input'))")
    assert page.run("document.querySelectorAll('#list article').length") == 1


def test_hostile_texts_are_text(page: Page, tmp_path: Path) -> None:
    path = write_page(tmp_path / "hostile.html", levels=3, sizes=2, tasks=4, items=8, hostile=TEXTS)
    page.problems.clear()
    page.open(path, 1280)
    page.run("which.value = 'all'; which.dispatchEvent(new Event('input'))")
    assert page.problems == []
    assert page.run("document.querySelectorAll('img').length") == 0
    questions = page.run("[...document.querySelectorAll('#list article p')].map(p => p.textContent)")
    assert sum(question.startswith(TEXTS[0]) for question in questions) == 1
    assert "49" not in page.run("document.querySelector('h1').textContent")
    assert "\u202e" not in path.read_text(encoding="utf-8").split("packed")[0]
