"""The study file's tables, and how an older file becomes a newer one."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable

APPLICATION_ID = 0x67677566
"""Marks the SQLite file as a study ("gguf" in ASCII)."""

_VERSION_1 = """
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    started_at TEXT NOT NULL,
    command TEXT NOT NULL,
    environment TEXT NOT NULL            -- JSON: machine, Python, versions of the packages, llama.cpp build
);
CREATE TABLE model_file (
    sha256 TEXT PRIMARY KEY,
    path TEXT NOT NULL,
    architecture TEXT NOT NULL,
    parameters INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    level TEXT NOT NULL,
    bits_per_weight REAL NOT NULL,
    origin TEXT NOT NULL                 -- JSON: source_sha256, source_level, source_is_quantized
);
CREATE TABLE point (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL,                -- of the model file; made up where a level could not be made
    settings TEXT NOT NULL,              -- JSON: what can change answers
    name TEXT NOT NULL,
    model TEXT NOT NULL,
    plans_speed INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    log_path TEXT,
    UNIQUE (sha256, settings)
);
CREATE TABLE task (
    hash TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    title TEXT NOT NULL,
    "group" TEXT NOT NULL,
    metric TEXT NOT NULL,
    metrics TEXT NOT NULL,               -- JSON: names
    planned_run INTEGER NOT NULL,
    subgroup TEXT NOT NULL DEFAULT '',
    kind TEXT NOT NULL DEFAULT 'choice',
    aggregates TEXT NOT NULL DEFAULT '[]',  -- JSON: names
    groups TEXT NOT NULL DEFAULT '{}'    -- JSON: subjects by group
);
CREATE TABLE item (
    task_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    id TEXT NOT NULL,
    content TEXT NOT NULL,               -- JSON: contexts, choices, golds, references, subject, cluster
    gold INTEGER NOT NULL,
    header INTEGER NOT NULL DEFAULT 0,   -- of item_header; 0: none
    PRIMARY KEY (task_hash, hash)
) WITHOUT ROWID;
CREATE TABLE item_header (               -- description and few-shot examples, which items share
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
);
CREATE TABLE point_task (
    point_id INTEGER NOT NULL,
    task_hash TEXT NOT NULL,
    PRIMARY KEY (point_id, task_hash)
) WITHOUT ROWID;
CREATE TABLE outcome (
    point_id INTEGER NOT NULL,
    task_hash TEXT NOT NULL,
    item_hash TEXT NOT NULL,
    value REAL,
    answer INTEGER,
    metrics TEXT NOT NULL,               -- JSON: value by metric
    logprobs TEXT NOT NULL,              -- JSON: nats by choice
    token_counts TEXT NOT NULL,          -- JSON
    truncated_tokens INTEGER NOT NULL,
    unscored_reason TEXT,
    text TEXT,                           -- what was written
    extracted TEXT,                      -- what was taken for the answer
    finish_reason TEXT,                  -- stop, eog, length or context
    seconds REAL,
    PRIMARY KEY (point_id, task_hash, item_hash)
) WITHOUT ROWID;
CREATE TABLE measurement (
    id INTEGER PRIMARY KEY,
    point_id INTEGER NOT NULL,
    conditions TEXT NOT NULL,            -- JSON: machine, build, threads, context
    details TEXT NOT NULL DEFAULT '{}',  -- JSON: load time, states of the machine, buffers, prediction, layers, devices
    complete INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE speed_sample (
    measurement_id INTEGER NOT NULL,
    test TEXT NOT NULL,
    repetition INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    seconds REAL NOT NULL,
    first_token_seconds REAL,
    joules TEXT NOT NULL DEFAULT '{}',   -- JSON: by source
    PRIMARY KEY (measurement_id, test, repetition)
) WITHOUT ROWID;
CREATE TABLE memory (
    measurement_id INTEGER NOT NULL,
    kind TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    method TEXT NOT NULL,
    PRIMARY KEY (measurement_id, kind)
) WITHOUT ROWID;
CREATE TABLE point_run (                 -- whose environment a point was evaluated in
    point_id INTEGER NOT NULL,
    run_id INTEGER NOT NULL,
    PRIMARY KEY (point_id, run_id)
) WITHOUT ROWID;
CREATE TABLE text_run (                  -- a point run over a text, token by token
    point_id INTEGER NOT NULL,
    conditions TEXT NOT NULL,            -- JSON: text, context, reference
    content BLOB NOT NULL,               -- NumPy's .npz (gguf_eval.store.text_content)
    UNIQUE (point_id, conditions)
);
CREATE TABLE harness_figure (            -- lm-evaluation-harness's own figures
    point_id INTEGER NOT NULL,
    task TEXT NOT NULL,
    metric TEXT NOT NULL,
    value REAL NOT NULL,
    standard_error REAL,
    PRIMARY KEY (point_id, task, metric)
) WITHOUT ROWID;
"""

_ANSWER_DIVERGENCE = """
CREATE TABLE answer_divergence (         -- of a point from a reference, on the tokens of an item's right answer
    point_id INTEGER NOT NULL,
    reference_id INTEGER NOT NULL,       -- a point of this study
    task_hash TEXT NOT NULL,
    item_hash TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    kld REAL,                            -- mean over the tokens, nats; NULL where there is none
    kld_variance REAL NOT NULL,          -- of the estimate, from the draws
    same_top INTEGER NOT NULL,           -- tokens at which both find the same token most probable
    reason TEXT,                         -- why there is none
    PRIMARY KEY (point_id, reference_id, task_hash, item_hash)
) WITHOUT ROWID;
"""


def _create(connection: sqlite3.Connection) -> None:
    _execute(connection, _VERSION_1)


def _add_answer_divergence(connection: sqlite3.Connection) -> None:
    _execute(connection, _ANSWER_DIVERGENCE)


def _execute(connection: sqlite3.Connection, script: str) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            connection.execute(statement)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_create, _add_answer_divergence)
"""Step i brings a file of version i to version i + 1."""

SCHEMA_VERSION = len(MIGRATIONS)
_PRAGMAS = ("application_id", "user_version")


def is_older_study(connection: sqlite3.Connection) -> bool:
    """Whether the file is a study that `migrate` would change."""
    application, version = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _PRAGMAS)
    return bool(application == APPLICATION_ID and 0 < version < SCHEMA_VERSION)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to `SCHEMA_VERSION`, all steps in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for step in MIGRATIONS[version:]:
            step(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back by itself
            connection.execute("ROLLBACK")
        raise
