"""Text from models, data sets and file names is data in every form a report has: never markup, command or formula."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import sys
import unicodedata
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from builders import printed
from hostile import TEXTS
from markdown_it import MarkdownIt
from synthetic_study import SIZES, write_study

from gguf_eval.analysis.summary import StudySummary, summarise
from gguf_eval.cli import main
from gguf_eval.report.charts import charts, write_image
from gguf_eval.report.data import columns_of, item_rows, summary_rows, write_csv, write_items_parquet, write_jsonl
from gguf_eval.report.escape import csv_cell, json_text, markdown, plain
from gguf_eval.report.export import to_document
from gguf_eval.report.html import to_html
from gguf_eval.report.markdown import to_markdown
from gguf_eval.report.terminal import print_report
from gguf_eval.store.read import read_study
from gguf_eval.store.records import StudyRecord
from gguf_eval.store.write import StudyWriter

UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")
FORMULAS = tuple("=+-@\t\r\n＝＋－＠")


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = "=1 [bold]'&;" + ("" if sys.platform == "win32" else "<b>\x1b[31m\u202e|`")
    path = tmp_path_factory.mktemp("hostile") / f"{name}.sqlite"
    write_study(path, levels=2, sizes=3, tasks=len(TEXTS), items=len(TEXTS), hostile=TEXTS, texts=len(TEXTS))
    with StudyWriter(path) as study:
        for number, text in enumerate(TEXTS):
            model, mix = TEXTS[number % 3] + SIZES[number % 3][0], {"recipe": text, "variant": text}
            study.save_unmade(f"{text} {number}", model, text, {}, "0" * 64, text, Path("log"))
            study.save_unmade(f"{text} mix {number}", model, "Q4_0", mix, "0" * 64, text, Path("log"))
    connection = sqlite3.connect(path)
    with connection:
        (written,) = connection.execute("SELECT hash FROM task LIMIT 1").fetchone()
        connection.execute("UPDATE task SET kind = 'generation' WHERE hash = ?", (written,))
        items = connection.execute("SELECT hash FROM item WHERE task_hash = ?", (written,)).fetchall()
        for number, (item,) in enumerate(items):
            text = TEXTS[number % len(TEXTS)]
            connection.execute("UPDATE outcome SET text = ?, extracted = ? WHERE item_hash = ?", (text, text, item))
        connection.execute("UPDATE run SET command = ?", ("gguf-eval run " + " ".join(TEXTS),))
    connection.close()
    return path


@pytest.fixture(scope="module")
def record(study_file: Path) -> StudyRecord:
    return read_study(study_file)


@pytest.fixture(scope="module")
def study(record: StudyRecord) -> StudySummary:
    return summarise(record)


def unsafe(text: str) -> set[str]:
    """Characters other than line breaks that a terminal may obey."""
    return {character for character in text if character != "\n" and unicodedata.category(character) in UNSAFE}


@pytest.mark.parametrize("width", [80, 400])
def test_terminal(study: StudySummary, width: int) -> None:
    coloured = printed(
        lambda console: print_report(study, console), width, force_terminal=True, color_system="truecolor"
    )
    text = re.sub(r"\x1b\[[0-9;]*m", "", coloured)  # rich's own colours
    assert not unsafe(text)
    assert "[bold red]x[/bold red]" in text or width == 80


@pytest.mark.parametrize("command", [
    ["report"], ["report", "--wide"], ["report", "--format", "markdown"], ["report", "--json"],
    ["report", "--format", "jsonl"], ["report", "--format", "jsonl", "--items"], ["compare"], ["compare", "--json"],
    ["recommend"], ["recommend", "--json"], ["report", "--columns", "nope"],
    ["report", "--chart", "nope", "-o", "x.svg"],
])  # fmt: skip
def test_commands_print_no_character_that_a_terminal_obeys(
    study_file: Path, command: list[str], record: StudyRecord, study: StudySummary,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # What the commands would read and sum up again, a second each.
    monkeypatch.setattr("gguf_eval.store.read.read_study", lambda path: record)
    monkeypatch.setattr("gguf_eval.analysis.summary.summarise", lambda record: study)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["gguf-eval", command[0], str(study_file), *command[1:]])
    with pytest.raises(SystemExit):
        main()
    printed = capsys.readouterr()
    assert printed.out or printed.err
    assert not unsafe(printed.out + printed.err)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_changes_print_no_character_that_a_terminal_obeys(
    study_file: Path,
    tmp_path: Path,
    options: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later = tmp_path / f"{study_file.stem} later.sqlite"
    write_study(later, levels=2, sizes=3, tasks=len(TEXTS), items=len(TEXTS), hostile=TEXTS[1:], texts=3, drift=0.9)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["gguf-eval", "changes", str(study_file), str(later), *options])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "no point is in both studies" in capsys.readouterr().err
    connection = sqlite3.connect(later)
    with connection:  # the same files under other names, on another machine
        connection.execute("UPDATE run SET environment = ?", (json.dumps({"machine": {"processor": TEXTS[5]}}),))
        for i, (name, *_) in enumerate(SIZES):
            connection.execute("UPDATE point SET model = ? WHERE model = ?", (TEXTS[i] + name, TEXTS[i + 1] + name))
    connection.close()
    with pytest.raises(SystemExit, match="0"):
        main()
    printed = capsys.readouterr()
    assert not unsafe(printed.out + printed.err)
    if not options:
        assert "␛[31mred␛]0;title␇" in printed.out
        assert "<script>alert(1)</script>Llama-3.2-1B" in printed.out


class Elements(HTMLParser):
    """The elements of a page, and the texts of its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._script: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._script = dict(attrs).get("id") or "code" if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data


def test_html(record: StudyRecord, study: StudySummary) -> None:
    page = to_html(record, study)
    elements = Elements()
    elements.feed(page)
    tags = [tag for tag, _ in elements.found]
    assert tags.count("script") == 4
    assert not {"img", "svg", "a", "iframe", "b"} & set(tags)
    handlers = {(tag, name) for tag, attributes in elements.found for name in attributes if name.startswith("on")}
    assert handlers == {("form", "onsubmit")}
    specs = json.loads(elements.scripts["specs"])
    assert len(specs) == len(charts(study))
    assert re.fullmatch(r"[A-Za-z0-9+/=\s]*", elements.scripts["packed"])
    body = page.split('id="packed"')[0].split("</style>")[1]
    assert not unsafe(body)
    assert "49" not in "".join(re.findall("<h1>(.*?)</h1>", body))


def test_markdown(study: StudySummary) -> None:
    text = to_markdown(study)
    assert not unsafe(text)
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    kinds = [token.type for block in tokens for token in (block, *(block.children or ()))]
    harmful = {"html_block", "html_inline", "link_open", "image", "code_inline", "s_open", "em_open", "strong_open",
               "hr", "ordered_list_open", "fence"}  # fmt: skip
    assert not harmful & set(kinds)
    assert kinds.count("heading_open") == 4
    assert kinds.count("code_block") == 1
    assert kinds.count("table_open") == 3
    cells, columns = 0, set()
    for kind in kinds:
        cells = 0 if kind == "tr_open" else cells + (kind in ("td_open", "th_open"))
        if kind == "tr_close":
            columns.add(cells)
    assert len(columns) == 1


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("place", ["{}\n", "- {}\n", "### {}\n", "> {}\n", "| a | b |\n|---|---|\n| {} | c |\n"])
def test_markdown_shows_the_text_itself(text: str, place: str) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(place.format(markdown(text)))
    inline = [token for token in tokens if token.type == "inline"]
    shown = next(token for token in inline if token.content not in ("a", "b", "c"))
    assert {child.type for child in shown.children or ()} <= {"text", "text_special"}
    assert "".join(child.content for child in shown.children or ()).strip() == plain(text).strip()


def test_csv(record: StudyRecord, study: StudySummary) -> None:
    for rows in (list(summary_rows(study)), list(item_rows(record))):
        out = io.StringIO(newline="")
        write_csv(columns_of(rows), rows, out)
        lines = list(csv.reader(io.StringIO(out.getvalue(), newline="")))
        assert len(lines) == len(rows) + 1
        assert {len(line) for line in lines} == {len(lines[0])}
        for cell in {cell for line in lines for cell in line}:
            assert not cell.startswith(FORMULAS) or re.fullmatch(r"-\d+(\.\d+)?(e-?\d+)?", cell), cell


def test_csv_leaves_other_text_alone() -> None:
    assert [csv_cell(value) for value in ("a=b", -1.5, None, "")] == ["a=b", -1.5, None, ""]


def test_json_and_parquet_give_the_texts_back(record: StudyRecord, study: StudySummary, tmp_path: Path) -> None:
    document = to_document(study)
    text = json_text(document)
    assert not unsafe(text)
    assert json.loads(text) == json.loads(json.dumps(document))
    out, rows = io.StringIO(), list(item_rows(record))
    write_jsonl(iter(rows), out)
    assert not unsafe(out.getvalue())
    assert [json.loads(line) for line in out.getvalue().splitlines()] == rows
    parquet = pytest.importorskip("pyarrow.parquet")
    write_items_parquet(record, tmp_path / "items.parquet")
    assert parquet.read_table(tmp_path / "items.parquet")["text"].to_pylist() == [row["text"] for row in rows]


def test_svg(study: StudySummary, tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    write_image(study, tmp_path / "chart.svg", "svg", "quality")
    text = (tmp_path / "chart.svg").read_text(encoding="utf-8")
    assert not unsafe(text)
    for element in ET.fromstring(text).iter():
        assert not element.tag.endswith(("script", "foreignObject", "}a", "image"))
        assert not [name for name in element.attrib if name.startswith("on") or name.endswith("href")]
