"""The web page in a real browser: no errors, no network, charts drawn, sorting and drill-down work, wide and narrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page, browser_page, find_browser
from hostile import TEXTS
from synthetic_study import write_study

from gguf_eval.analysis.summary import summarise
from gguf_eval.report.html import to_html
from gguf_eval.study.read import read_study

pytest.importorskip("altair")


def write_page(path: Path, **size: object) -> Path:
    study = read_study(write_study(path.with_suffix(".sqlite"), **size))  # type: ignore[arg-type]
    path.write_text(to_html(study, summarise(study)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("page") / "page.html", levels=4, sizes=2, tasks=5, items=60)


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
    assert charts == 6
    assert page.run("document.querySelectorAll('.chart[data-drawn] svg').length") == charts
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("[...document.querySelectorAll('.chart')].every(c => c.getAttribute('aria-label').length > 20)")
    assert page.run("document.querySelectorAll('figure table').length") == charts
    click = "document.querySelectorAll('table.sortable thead th')[2].querySelector('button').click()"
    files = "[...document.querySelector('table.sortable').tBodies[0].rows].map(r => +r.cells[2].dataset.order)"
    page.run(click)
    ascending = page.run(files)
    page.run(click)
    assert ascending == sorted(ascending)
    assert page.run(files) == ascending[::-1]
    assert page.run("document.querySelector('thead th[aria-sort]').ariaSort") == "descending"
    assert page.run("document.querySelectorAll('#list article').length") > 0
    assert page.run("[...document.querySelectorAll('#list article')].every(a => a.querySelector('.flip'))")
    page.run("which.value = 'all'; which.dispatchEvent(new Event('input'))")
    assert page.run("document.querySelectorAll('#list article').length") == 20
    page.run("more.click()")
    assert page.run("document.querySelectorAll('#list article').length") == 40
    assert page.run("document.getElementById('count').textContent") == "40 of 60 items shown, 60 asked"


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
