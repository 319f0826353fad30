"""The study file: opened by one writer at a time, committed as results arrive, read as records."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock

from gguf_eval.errors import StudyError
from gguf_eval.files.model_file import ModelFile
from gguf_eval.runtime.answers import AnswerDivergence
from gguf_eval.store.database import StudyLookup, check_folder, check_version, sqlite_errors
from gguf_eval.store.records import Outcome, TextRecord, settings_label_of
from gguf_eval.store.rows import canonical_json, columns, item_content
from gguf_eval.store.schema import migrate
from gguf_eval.store.text_content import pack_text
from gguf_eval.tasks.prompts import Item
from gguf_eval.tasks.spec import TaskHead

_UNMADE = "unmade "
"""Begins what stands for the hash of a model file that could not be made."""


def is_unmade(sha256: str) -> bool:
    """Whether a point's hash stands for a model file that could not be made."""
    return sha256.startswith(_UNMADE)


def _recipe_name(origin: Mapping[str, Any]) -> dict[str, Any]:
    """What of a point's origin names the recipe that was to make it; nothing where that was a level."""
    return {key: origin[key] for key in ("recipe", "variant") if key in origin} if "recipe" in origin else {}


def _unmade_key(level: str, named: Mapping[str, Any], source_sha256: str) -> str:
    return f"{_UNMADE}{settings_label_of(level, {}, named)} of {source_sha256}"


def _save_header(connection: sqlite3.Connection, text: str) -> int:
    """The number of a header's text; 0 where there is none."""
    if not text:
        return 0
    connection.execute("INSERT OR IGNORE INTO item_header (text) VALUES (?)", (text,))
    return int(connection.execute("SELECT id FROM item_header WHERE text = ?", (text,)).fetchone()[0])


class StudyWriter(StudyLookup):
    """An open study file that this process alone writes to. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Create or open ``path``; raises `StudyError` when it can't be written or another run holds it."""
        self._lock = filelock.FileLock(f"{path}.lock")
        check_folder(path)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise StudyError(
                f"{path}: another run is writing to this study; wait for it, or name another with --study"
            ) from None
        except OSError as error:
            raise StudyError(
                f"{path}: a writable folder is needed ({error.strerror}); name another study with --study"
            ) from None
        try:
            with sqlite_errors(path):
                # The whole path: SQLite takes ":memory:" and "file:x" for something else than a file of that name.
                super().__init__(path, sqlite3.connect(path.absolute(), isolation_level=None))
                check_version(self._connection, path)
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = NORMAL")
                migrate(self._connection)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> StudyWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(sqlite3.Error):  # somebody reads: the next run folds it in
            self._connection.execute("PRAGMA journal_mode = DELETE")  # one file, that needs no second one to be read
        self._connection.close()
        self._lock.release()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with sqlite_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise

    def begin_run(self, command: str, environment: Mapping[str, Any]) -> int:
        """Note that a run starts; return its number."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._transaction() as connection:
            row = connection.execute(
                "INSERT INTO run (started_at, command, environment) VALUES (?, ?, ?) RETURNING id",
                (now, command, canonical_json(environment)),
            ).fetchone()
        return int(row[0])

    def save_environment(self, run: int, environment: Mapping[str, Any]) -> None:
        """Replace what is known of a run's machine and build."""
        with self._transaction() as connection:
            connection.execute("UPDATE run SET environment = ? WHERE id = ?", (canonical_json(environment), run))

    def save_task(self, task: TaskHead, items: Sequence[Item], run: int) -> None:
        """Plan a task's items; items planned before stay."""
        with self._transaction() as connection:
            row = columns(task, TaskHead) | {"planned_run": run}
            names, marks = (", ".join(form.format(name) for name in row) for form in ('"{}"', ":{}"))
            connection.execute(f"INSERT OR REPLACE INTO task ({names}) VALUES ({marks})", row)
            headers = {text: _save_header(connection, text) for text in {item.header.text for item in items}}
            connection.executemany(
                "INSERT OR IGNORE INTO item (task_hash, hash, id, content, gold, header) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (task.hash, item.hash, item.id, item_content(item), item.gold, headers[item.header.text])
                    for item in items
                ],
            )

    def save_point(
        self, name: str, model: str, settings: Mapping[str, Any], file: ModelFile, origin: Mapping[str, Any]
    ) -> int:
        """Store a point and its model file; return its id, the same for the same content and settings."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO model_file VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (file.sha256, str(file.path), file.architecture, file.parameters, file.size_bytes, file.level,
                 file.bits_per_weight, canonical_json(origin)),
            )  # fmt: skip
            row = connection.execute(
                "INSERT INTO point (sha256, settings, name, model) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (sha256, settings) DO UPDATE SET name = excluded.name, model = excluded.model "
                "RETURNING id",
                (file.sha256, canonical_json(settings), name, model),
            ).fetchone()
        return int(row[0])

    def save_unmade(
        self,
        name: str,
        model: str,
        level: str,
        origin: Mapping[str, Any],
        source_sha256: str,
        error: str,
        log: Path,
    ) -> None:
        """Store a point whose model file could not be made, with the reason."""
        named = _recipe_name(origin)
        made_up = ModelFile(Path(), _unmade_key(level, named, source_sha256), "", 0, 0, level, 0.0, None)
        point = self.save_point(name, model, {}, made_up, named)
        self.set_failure(point, error, log)

    def forget_unmade(self, level: str, origin: Mapping[str, Any], source_sha256: str) -> None:
        """Drop the failed point of a level or recipe that could be made after all."""
        with self._transaction() as connection:
            key = (_unmade_key(level, _recipe_name(origin), source_sha256),)
            connection.execute("DELETE FROM point WHERE sha256 = ?", key)
            connection.execute("DELETE FROM model_file WHERE sha256 = ?", key)

    def plan_point(self, point: int, task_hashes: Iterable[str], *, speed: bool) -> None:
        """Note which tasks a point is to answer, and whether its speed is wanted."""
        with self._transaction() as connection:
            connection.execute("UPDATE point SET plans_speed = max(plans_speed, ?) WHERE id = ?", (speed, point))
            connection.executemany(
                "INSERT OR IGNORE INTO point_task VALUES (?, ?)", [(point, task_hash) for task_hash in task_hashes]
            )

    def set_failure(self, point: int, error: str | None, log_path: Path | None) -> None:
        """Store why a point failed, or None when it did not."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE point SET error = ?, log_path = ? WHERE id = ?",
                (error, str(log_path) if log_path else None, point),
            )

    def save_divergences(
        self, point: int, reference: int, task_hash: str, found: Mapping[str, AnswerDivergence]
    ) -> None:
        """Store divergences on right answers, by item hash."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO answer_divergence VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (point, reference, task_hash, item, one.tokens, one.kld, one.kld_variance, one.same_top, one.reason)
                    for item, one in found.items()
                ],
            )

    def save_outcomes(self, point: int, task_hash: str, outcomes: Sequence[Outcome]) -> None:
        """Store outcomes; they are on the disk's way when this returns."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO outcome VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (point, task_hash, o.item_hash, o.value, o.answer, canonical_json(o.metrics),
                     json.dumps([round(value, 6) for value in o.logprobs]), json.dumps(o.token_counts),
                     o.truncated_tokens, o.unscored_reason, o.text, o.extracted, o.finish_reason, o.seconds)
                    for o in outcomes
                ],
            )  # fmt: skip

    def save_harness_figures(self, point: int, task: str, figures: Mapping[str, tuple[float, float | None]]) -> None:
        """Store what lm-evaluation-harness says of a task: (value, standard error) by metric, instead of before."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM harness_figure WHERE point_id = ? AND task = ?", (point, task))
            connection.executemany(
                "INSERT INTO harness_figure VALUES (?, ?, ?, ?, ?)",
                [(point, task, metric, value, error) for metric, (value, error) in figures.items()],
            )

    def begin_measurement(self, point: int, conditions: Mapping[str, Any]) -> int:
        """Start a measurement; return its number."""
        with self._transaction() as connection:
            row = connection.execute(
                "INSERT INTO measurement (point_id, conditions) VALUES (?, ?) RETURNING id",
                (point, canonical_json(conditions)),
            ).fetchone()
        return int(row[0])

    def save_text(self, point: int, record: TextRecord) -> None:
        """Store a run over a text."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO text_run VALUES (?, ?, ?)",
                (point, canonical_json(record.conditions), pack_text(record)),
            )

    def save_point_run(self, point: int, run: int) -> None:
        """Note that a point was evaluated in a run, and so in that run's environment."""
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO point_run VALUES (?, ?)", (point, run))

    def save_details(self, measurement: int, details: Mapping[str, Any]) -> None:
        """Store what a measurement found beside times and bytes."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE measurement SET details = ? WHERE id = ?", (canonical_json(details), measurement)
            )

    def save_speed_sample(
        self,
        measurement: int,
        test: str,
        repetition: int,
        tokens: int,
        seconds: float,
        first_token_seconds: float | None = None,
        joules: Mapping[str, float] | None = None,
    ) -> None:
        """Store one timed repetition."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO speed_sample VALUES (?, ?, ?, ?, ?, ?, ?)",
                (measurement, test, repetition, tokens, seconds, first_token_seconds, canonical_json(joules or {})),
            )

    def finish_measurement(self, measurement: int, memory: Mapping[str, tuple[int, str]]) -> None:
        """Store memory as kind -> (bytes, method) and mark the measurement complete."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO memory VALUES (?, ?, ?, ?)",
                [(measurement, kind, size, method) for kind, (size, method) in memory.items()],
            )
            connection.execute("UPDATE measurement SET complete = 1 WHERE id = ?", (measurement,))
