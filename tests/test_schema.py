"""The study file's tables: what the newest schema is, and that an older file becomes it."""

from __future__ import annotations

import math
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from synthetic_study import write_study

from gguf_eval.errors import StudyError
from gguf_eval.store.database import open_lookup
from gguf_eval.store.read import read_study
from gguf_eval.store.schema import MIGRATIONS, SCHEMA_VERSION, migrate
from gguf_eval.store.write import StudyWriter

COLUMNS = {
    "run": "id started_at command environment",
    "model_file": "sha256 path architecture parameters size_bytes level bits_per_weight origin",
    "point": "id sha256 settings name model plans_speed error log_path",
    "task": "hash name version title group metric metrics planned_run subgroup kind aggregates groups",
    "item": "task_hash hash id content gold header",
    "item_header": "id text",
    "point_task": "point_id task_hash",
    "outcome": "point_id task_hash item_hash value answer metrics logprobs token_counts truncated_tokens "
    "unscored_reason text extracted finish_reason seconds",
    "measurement": "id point_id conditions details complete",
    "speed_sample": "measurement_id test repetition tokens seconds first_token_seconds joules",
    "memory": "measurement_id kind bytes method",
    "point_run": "point_id run_id",
    "text_run": "point_id conditions content",
    "harness_figure": "point_id task metric value standard_error",
    "answer_divergence": "point_id reference_id task_hash item_hash tokens kld kld_variance same_top reason",
}


def columns(connection: sqlite3.Connection) -> dict[str, str]:
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {table: " ".join(row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')) for table in tables}


def older(path: Path, version: int) -> None:
    """A study as an earlier version of this program left it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for step in MIGRATIONS[:version]:
            step(connection)
        connection.execute(f"PRAGMA application_id = {0x67677566}")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("INSERT INTO run (started_at, command, environment) VALUES ('then', 'run', '{}')")
        connection.execute("INSERT INTO model_file VALUES ('a', 'm.gguf', 'llama', 1, 2, 'Q8_0', 8.5, '{}')")
        connection.execute("INSERT INTO point (sha256, settings, name, model) VALUES ('a', '{}', 'm Q8_0', 'm')")


def test_the_newest_schema() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection)
        assert columns(connection) == COLUMNS
        assert connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION == 2


def test_an_older_study_is_read_as_it_is_and_migrated_when_written(tmp_path: Path) -> None:
    for version in range(1, SCHEMA_VERSION):
        path = tmp_path / f"{version}.sqlite"
        older(path, version)
        before = path.read_bytes()
        with open_lookup(path) as lookup:
            assert lookup.divergent(1, 2, "task") == set()
        (point,) = read_study(path).points
        assert (point.name, point.divergences) == ("m Q8_0", {})
        assert path.read_bytes() == before
        with StudyWriter(path):
            pass
        with closing(sqlite3.connect(path)) as connection:
            assert columns(connection) == COLUMNS
        assert [point.name for point in read_study(path).points] == ["m Q8_0"]


def test_a_disk_that_is_full_is_named_and_not_what_it_undid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")  # as SQLite does by itself where no page can be written
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("gguf_eval.store.schema.MIGRATIONS", (fill,))
    with (
        closing(sqlite3.connect(tmp_path / "s.sqlite", isolation_level=None)) as connection,
        pytest.raises(sqlite3.OperationalError, match="full"),
    ):
        migrate(connection)


def test_what_was_written_otherwise_once_is_read(tmp_path: Path) -> None:
    """Items without ``golds``, and the NaN that Python's `json` writes."""
    path = tmp_path / "study.sqlite"
    write_study(path, levels=1, sizes=1, tasks=1, items=3)
    (before,) = read_study(path).tasks
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE item SET content = json_remove(content, '$.golds')")
        connection.execute("UPDATE outcome SET logprobs = '[NaN, -Infinity, -1, -2.5]'")
        item = '{"contexts":["Say it"],"references":[NaN,100000000000000000000000000],"unknown":1}'
        connection.execute("INSERT INTO item VALUES (?, 'new', 'written', ?, 0, 0)", (before.hash, item))
    study = read_study(path)
    (task,) = study.tasks
    written = task.items["new"]
    assert {key: item for key, item in task.items.items() if key != "new"} == before.items
    assert (written.id, written.cluster, written.choices, written.golds, written.gold) == ("written",) * 2 + ((), (), 0)
    assert math.isnan(written.references[0])
    assert written.references[1] == 10**26
    for outcome in study.points[0].outcomes[task.hash].values():
        assert math.isnan(outcome.logprobs[0])
        assert outcome.logprobs[1:] == (-math.inf, -1.0, -2.5)


def test_a_column_that_is_no_json_is_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    write_study(path, levels=1, sizes=1, tasks=1, items=1)
    for text in ("{", "[1]"):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE point SET settings = ?", (text,))
        with pytest.raises(StudyError, match="the study file holds what this gguf-eval can't read"):
            read_study(path)


def test_a_finished_study_is_one_file_that_needs_no_other_to_be_read(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    write_study(path, levels=2, sizes=1, tasks=1, items=3)
    with StudyWriter(path):
        pass
    assert path.read_bytes()[18:20] == b"\1\1"  # the file format's way to say that there is no write-ahead journal
    assert len(read_study(path).points) == 2
    assert {found.name for found in tmp_path.iterdir()} - {"s.sqlite.lock"} == {"s.sqlite"}


def test_a_study_that_was_left_with_a_journal_is_read_where_none_can_be_made(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    write_study(path, levels=2, sizes=1, tasks=1, items=3)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    (tmp_path / "s.sqlite-shm").mkdir()  # as on a disk that is read only
    assert len(read_study(path).points) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no name of a file there")
@pytest.mark.parametrize("name", [":memory:", "file:x", "file:x?mode=memory", "file::memory:?cache=shared"])
def test_a_study_is_a_file_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(Path(name), levels=1, sizes=1, tasks=1, items=3)
    assert {path.name for path in tmp_path.iterdir()} <= {name, f"{name}.lock"}
    assert len(read_study(Path(name)).points) == 1
