"""The study file as a database: how it is opened, and what a run or a plan looks up in it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gguf_eval.errors import StudyError
from gguf_eval.store.rows import canonical_json, json_object
from gguf_eval.store.schema import APPLICATION_ID, SCHEMA_VERSION, is_older_study, migrate


@contextlib.contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite raises, and what is no JSON of the kind needed, into one line."""
    try:
        yield
    except (msgspec.DecodeError, json.JSONDecodeError) as error:
        raise StudyError(f"{path}: the study file holds what this gguf-eval can't read ({error})") from None
    except sqlite3.DatabaseError as error:
        text = str(error)
        advice = "make room and run the same command again" if "full" in text else "check the file and its folder"
        raise StudyError(f"{path}: the study file can't be used ({text}); {advice}") from None


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database that is no study, or one written by a newer version of this program."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (tables or version):
        raise StudyError(f"{path}: this SQLite file is no study of gguf-eval; name another file with --study")
    if version > SCHEMA_VERSION:
        raise StudyError(
            f"{path}: the study has schema {version}, this gguf-eval knows up to {SCHEMA_VERSION}; "
            "update gguf-eval, or name another file with --study"
        )


def open_to_read(path: Path) -> sqlite3.Connection:
    """The file to read from; a study of an older schema is migrated in memory and stays as it is."""
    address = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True, isolation_level=None)
    try:
        connection.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.OperationalError:
        # A journal's files can't be made here (a disk to be read only). Without a journal nobody writes.
        if path.with_name(f"{path.name}-wal").exists():
            raise
        connection = sqlite3.connect(f"{address}&immutable=1", uri=True, isolation_level=None)
    if not is_older_study(connection):
        return connection
    newer = sqlite3.connect(":memory:", isolation_level=None)
    with contextlib.closing(connection):
        connection.backup(newer)
    migrate(newer)
    return newer


def check_folder(path: Path) -> None:
    """Refuse a study file in a folder that is not there."""
    if not path.parent.is_dir():
        raise StudyError(f"{path.parent}: no such folder; make it or name another study with --study")


@dataclass(frozen=True)
class MeasuredSpeed:
    """What a measurement in the study says of a model file."""

    parameters: int
    size_bytes: int
    processor: str
    load_seconds: float
    prompt: float
    """Tokens a second, as generation is."""
    generation: float


@dataclass(frozen=True)
class StoredModel:
    """A point of a study, as far as it says which model it is of."""

    model: str
    sha256: str
    origin: Mapping[str, Any]


class StudyLookup:
    """Looks up what an open study file holds already."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with sqlite_errors(self.path):
            return self._connection.execute(query, values).fetchall()

    def day(self) -> str | None:
        """The date, YYYY-MM-DD, that chat templates are told in all runs: that of the first; None before it."""
        for started_at, environment in self._rows("SELECT started_at, environment FROM run ORDER BY id LIMIT 1"):
            return str(json_object(environment).get("templates", {}).get("date", started_at[:10]))
        return None

    def answers(self, point: int, task_hash: str) -> dict[str, float | None]:
        """The headline metric of every outcome by item hash; None where unscored."""
        query = "SELECT item_hash, value FROM outcome WHERE point_id = ? AND task_hash = ?"
        return dict(self._rows(query, point, task_hash))

    def answered(self, point: int, task_hash: str) -> set[str]:
        """Hashes of the items this point has an outcome for."""
        return set(self.answers(point, task_hash))

    def scored(self, point: int, task_hash: str) -> set[str]:
        """Hashes of the items this point has a score for."""
        return {item_hash for item_hash, value in self.answers(point, task_hash).items() if value is not None}

    def stored_models(self) -> list[StoredModel]:
        """Of every point whose model file is known, the oldest first."""
        rows = self._rows(
            "SELECT model, sha256, origin FROM point JOIN model_file USING (sha256) WHERE architecture != '' "
            "ORDER BY id"
        )
        return [StoredModel(model, sha256, json_object(origin)) for model, sha256, origin in rows]

    def answered_points(self, model: str) -> list[tuple[int, str, dict[str, Any], str, float, dict[str, Any]]]:
        """(id, sha256, settings, level, bits per weight, origin) of the model's points that have any outcome."""
        rows = self._rows(
            "SELECT id, sha256, settings, level, bits_per_weight, origin FROM point JOIN model_file USING (sha256) "
            "WHERE model = ? AND EXISTS (SELECT 1 FROM outcome WHERE point_id = point.id) ORDER BY id",
            model,
        )
        return [(row[0], row[1], json_object(row[2]), row[3], row[4], json_object(row[5])) for row in rows]

    def divergent(self, point: int, reference: int, task_hash: str) -> set[str]:
        """Hashes of the items whose divergence from the reference is known, or known not to be had."""
        query = "SELECT item_hash FROM answer_divergence WHERE point_id = ? AND reference_id = ? AND task_hash = ?"
        return {row[0] for row in self._rows(query, point, reference, task_hash)}

    def find_point(self, sha256: str, settings: Mapping[str, Any]) -> int | None:
        """The id of the point of this model file and these settings, where the study has it."""
        query = "SELECT id FROM point WHERE sha256 = ? AND settings = ?"
        return next((int(row[0]) for row in self._rows(query, sha256, canonical_json(settings))), None)

    def has_measurement(self, point: int, conditions: Mapping[str, Any]) -> bool:
        """Whether speed and memory were measured completely under these conditions."""
        query = "SELECT 1 FROM measurement WHERE point_id = ? AND conditions = ? AND complete = 1"
        return bool(self._rows(query, point, canonical_json(conditions)))

    def has_text(self, point: int, conditions: Mapping[str, Any]) -> bool:
        """Whether the point was run over a text under these conditions."""
        query = "SELECT 1 FROM text_run WHERE point_id = ? AND conditions = ?"
        return bool(self._rows(query, point, canonical_json(conditions)))

    def measured_speeds(self) -> list[MeasuredSpeed]:
        """Every complete measurement that timed both prompt and generation, the newest last."""
        rows = self._rows(
            "SELECT measurement.id, parameters, size_bytes, conditions, details, test, sum(tokens), sum(seconds) "
            "FROM measurement JOIN point ON point.id = point_id JOIN model_file USING (sha256) "
            "JOIN speed_sample ON measurement_id = measurement.id WHERE complete = 1 AND seconds > 0 "
            "GROUP BY measurement.id, test ORDER BY measurement.id"
        )
        found: dict[int, dict[str, float]] = {}
        facts: dict[int, tuple[int, int, str, float]] = {}
        for number, parameters, size_bytes, conditions, details, test, tokens, seconds in rows:
            load = float(json_object(details).get("load_seconds", 0.0))
            facts[number] = (parameters, size_bytes, str(json_object(conditions).get("machine", "")), load)
            found.setdefault(number, {}).setdefault(test[:2], tokens / seconds)
        return [
            MeasuredSpeed(*facts[number], prompt=tests["pp"], generation=tests["tg"])
            for number, tests in found.items()
            if {"pp", "tg"} <= tests.keys()
        ]


@contextlib.contextmanager
def open_lookup(path: Path) -> Iterator[StudyLookup]:
    """Open a study to look things up; nothing is written, and one that is not there yet is empty.

    Raises `StudyError` for a file that is no study, and where its folder is not there.
    """
    check_folder(path)
    with sqlite_errors(path):
        opened = open_to_read(path) if path.is_file() else sqlite3.connect(":memory:", isolation_level=None)
        with contextlib.closing(opened) as connection:
            check_version(connection, path)
            if connection.execute("PRAGMA user_version").fetchone()[0]:
                yield StudyLookup(path, connection)
                return
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            migrate(connection)
            yield StudyLookup(path, connection)
