"""Reads a study file into records. Needs no lock: a run may be writing meanwhile."""

from __future__ import annotations

import contextlib
import gc
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf_eval.errors import StudyError
from gguf_eval.runtime.settings import ANCHOR
from gguf_eval.store.database import check_version, open_to_read, sqlite_errors
from gguf_eval.store.outcomes import LIGHT_COLUMNS, StoredOutcomes
from gguf_eval.store.records import (
    AnswerDivergences,
    MeasurementRecord,
    Outcome,
    PointRecord,
    SpeedRecord,
    Status,
    StudyRecord,
    TaskRecord,
    TextRecord,
)
from gguf_eval.store.rows import item_records, json_object, rows_of
from gguf_eval.store.text_content import is_broken, unpack_text
from gguf_eval.store.write import is_unmade


def read_study(path: Path) -> StudyRecord:
    """Everything in the study file; raises `StudyError`."""
    if not path.is_file():
        raise StudyError(f"{path}: no such study; 'gguf-eval run' makes one")
    with sqlite_errors(path), _collector_at_rest():
        connection = _open(path)
        try:
            check_version(connection, path)
            connection.execute("BEGIN")
            tasks = _tasks(connection)
            run = connection.execute("SELECT * FROM run ORDER BY id DESC LIMIT 1").fetchone()
            first = connection.execute("SELECT started_at FROM run ORDER BY id LIMIT 1").fetchone()
            order = {hash_: sorted(task.items) for hash_, task in tasks.items()}
            query = "SELECT * FROM point LEFT JOIN model_file USING (sha256) ORDER BY id"
            rows = rows_of(PointRecord, connection.execute(query))
            points = tuple(_point(connection, path, row, tasks, order) for row in rows)
        finally:
            connection.close()
    if run is None:
        raise StudyError(f"{path}: the study is empty; 'gguf-eval run' fills it")
    return StudyRecord(
        str(path), first["started_at"], run["command"], json_object(run["environment"]), tuple(tasks.values()), points
    )


@contextlib.contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Records hold no cycles, and looking for some again and again while many are made takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _open(path: Path) -> sqlite3.Connection:
    connection = open_to_read(path)
    connection.row_factory = sqlite3.Row
    return connection


def _tasks(connection: sqlite3.Connection) -> dict[str, TaskRecord]:
    """The newest version of each task, by hash, in the order they were planned."""
    newest: dict[str, dict[str, Any]] = {}
    for row in rows_of(TaskRecord, connection.execute("SELECT * FROM task ORDER BY planned_run, rowid")):
        newest.pop(row["name"], None)
        newest[row["name"]] = row
    query = "SELECT hash, id, gold, content FROM item WHERE task_hash = ?"
    return {
        row["hash"]: TaskRecord(**row, items=item_records(connection.execute(query, (row["hash"],))))
        for row in newest.values()
    }


def _point(
    connection: sqlite3.Connection,
    path: Path,
    row: dict[str, Any],
    tasks: Mapping[str, TaskRecord],
    order: Mapping[str, Sequence[str]],
) -> PointRecord:
    key = (row["id"],)
    planned = [r[0] for r in connection.execute("SELECT task_hash FROM point_task WHERE point_id = ?", key)]
    outcomes = {
        hash_: _outcomes(connection, path, row["id"], hash_, order[hash_]) for hash_ in tasks if hash_ in planned
    }
    speed, memory, measurement = _measurement(connection, row["id"])
    plans_speed = connection.execute("SELECT plans_speed FROM point WHERE id = ?", key).fetchone()[0]
    runs = connection.execute(
        "SELECT command, environment FROM run JOIN point_run ON run_id = run.id WHERE point_id = ? ORDER BY run.id", key
    ).fetchall()
    status: Status = "complete"
    if row["error"]:
        status = "failed"
    elif (plans_speed and not speed) or any(len(outcomes[hash_]) < len(tasks[hash_].items) for hash_ in outcomes):
        status = "partial"
    stored = row | {"sha256": None} if is_unmade(row["sha256"]) else row
    return PointRecord(
        **stored,
        status=status,
        speed=speed,
        memory=memory,
        measurement=measurement,
        environments=tuple(json_object(run["environment"]) for run in runs),
        outcomes=outcomes,
        harness=_harness(connection, row["id"]),
        texts=_texts(connection, row["id"]),
        divergences=_divergences(connection, row["id"], tasks),
        commands=tuple(dict.fromkeys(run["command"] for run in runs)),
    )


def _texts(connection: sqlite3.Connection, point: int) -> tuple[TextRecord, ...]:
    """The newest run over each text; one of a broken model has no figure."""
    newest: dict[str, TextRecord] = {}
    query = "SELECT conditions, content FROM text_run WHERE point_id = ? ORDER BY rowid"
    for row in connection.execute(query, (point,)):
        conditions = json_object(row["conditions"])
        newest[conditions["text_sha256"]] = unpack_text(row["content"], conditions)
    return tuple(record for record in newest.values() if not is_broken(record))


def _divergences(
    connection: sqlite3.Connection, point: int, tasks: Mapping[str, TaskRecord]
) -> dict[str, tuple[AnswerDivergences, ...]]:
    """By task hash; one for each reference."""
    query = (
        "SELECT task_hash, reference_id, item_hash, tokens, kld, kld_variance, same_top, reason "
        "FROM answer_divergence WHERE point_id = ? ORDER BY reference_id, task_hash, item_hash"
    )
    cursor = connection.cursor()
    cursor.row_factory = None  # plain tuples: there are many
    parts: dict[tuple[str, int], list[tuple[Any, ...]]] = {}
    for task, reference, *values in cursor.execute(query, (point,)):
        if task in tasks:
            parts.setdefault((task, reference), []).append(tuple(values))
    found: dict[str, tuple[AnswerDivergences, ...]] = {}
    for (task, reference), rows in parts.items():
        identity = connection.execute("SELECT sha256, settings FROM point WHERE id = ?", (reference,)).fetchone()
        columns = zip(*rows, strict=True)
        one = AnswerDivergences(identity["sha256"], json_object(identity["settings"]), *columns)
        found[task] = (*found.get(task, ()), one)
    return found


def _harness(connection: sqlite3.Connection, point: int) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = {}
    rows = connection.execute("SELECT task, metric, value FROM harness_figure WHERE point_id = ?", (point,))
    for row in rows:
        figures.setdefault(row["task"], {})[row["metric"]] = row["value"]
    return figures


def _outcomes(
    connection: sqlite3.Connection, path: Path, point: int, task_hash: str, items: Sequence[str]
) -> Mapping[str, Outcome]:
    """Outcomes that are decoded when looked at; ``items`` are the hashes of the task's items, in order."""
    where = "FROM outcome WHERE point_id = ? AND task_hash = ? ORDER BY item_hash"
    cursor = connection.cursor()
    cursor.row_factory = None  # plain tuples: there are many
    light = cursor.execute(f"SELECT {', '.join(LIGHT_COLUMNS)} {where}", (point, task_hash)).fetchall()
    hashes = items
    if len(light) != len(items):  # every answered item was planned: as many are the same
        hashes = [row[0] for row in connection.execute(f"SELECT item_hash {where}", (point, task_hash))]

    def fetch() -> dict[str, Outcome]:
        with sqlite_errors(path), contextlib.closing(_open(path)) as again:
            rows = rows_of(Outcome, again.execute(f"SELECT * {where}", (point, task_hash)))
            return {row["item_hash"]: Outcome(**row) for row in rows}

    return StoredOutcomes(hashes, light, fetch)


def _measurement(
    connection: sqlite3.Connection, point: int
) -> tuple[tuple[SpeedRecord, ...], dict[str, int], MeasurementRecord | None]:
    """Speed and memory of the newest complete measurement."""
    newest = connection.execute(
        "SELECT * FROM measurement WHERE point_id = ? AND complete = 1 ORDER BY id DESC LIMIT 1", (point,)
    ).fetchone()
    if newest is None:
        return (), {}, None
    samples: dict[tuple[str, int], list[sqlite3.Row]] = {}
    anchors: dict[str, float] = {}
    query = "SELECT * FROM speed_sample WHERE measurement_id = ? ORDER BY repetition"
    for row in connection.execute(query, (newest["id"],)):
        if row["test"].startswith(ANCHOR):
            anchors[row["test"].removeprefix(ANCHOR)] = row["seconds"]
        else:
            samples.setdefault((row["test"], row["tokens"]), []).append(row)
    speed = tuple(
        SpeedRecord(
            test,
            tokens,
            seconds=tuple(row["seconds"] for row in rows),
            first_token_seconds=tuple(
                row["first_token_seconds"] for row in rows if row["first_token_seconds"] is not None
            ),
            joules=tuple(json_object(row["joules"]) for row in rows),
            anchor_seconds=anchors.get(test),
        )
        for (test, tokens), rows in samples.items()
    )
    kinds = connection.execute("SELECT * FROM memory WHERE measurement_id = ?", (newest["id"],)).fetchall()
    record = MeasurementRecord(
        json_object(newest["conditions"]), json_object(newest["details"]), {row["kind"]: row["method"] for row in kinds}
    )
    return speed, {row["kind"]: row["bytes"] for row in kinds}, record
