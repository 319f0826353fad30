"""What a study keeps: plain records, in the words of the study file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from gguf_eval.runtime.settings import EngineSettings, chat_name, point_label
from gguf_eval.tasks.metrics import chance
from gguf_eval.tasks.prompts import ItemRecord
from gguf_eval.tasks.spec import TaskHead

if TYPE_CHECKING:
    import numpy.typing as npt

Status = Literal["complete", "partial", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What one point did on one item."""

    item_hash: str
    value: float | None
    """The headline metric on this item: 1 right, 0 wrong; None where unscored."""
    answer: int | None
    """The choice the headline metric picks."""
    metrics: dict[str, float]
    """Every metric of the task, by name."""
    logprobs: tuple[float, ...]
    """Summed log-likelihood of each choice, in nats."""
    token_counts: tuple[int, ...]
    truncated_tokens: int = 0
    unscored_reason: str | None = None
    text: str | None = None
    """What the model wrote (kind generation); its tokens are in ``token_counts``."""
    extracted: str | None = None
    """What the judge took for the answer."""
    finish_reason: str | None = None
    """Why the text ends: stop (a stop string), eog (the model ended it), length (the task's limit), context."""
    seconds: float | None = None
    """From the start of this answer to its end; others were written side by side."""


@dataclass(frozen=True, kw_only=True)
class TaskRecord(TaskHead):
    """One task of the study, with the items that were planned."""

    items: dict[str, ItemRecord]
    """By item hash."""

    @cached_property
    def has_subjects(self) -> bool:
        """Whether any item is of a named subject."""
        return any(item.subject for item in self.items.values())

    @cached_property
    def chances(self) -> dict[str, float]:
        """What guessing gets on each item, by item hash: nothing where there is no list to choose from."""
        return {
            key: chance(self.metric, len(item.choices), max(1, len(item.golds))) for key, item in self.items.items()
        }

    @cached_property
    def clusters(self) -> dict[str, str]:
        """The cluster of each item that shares one with another item, by item hash."""
        sizes = Counter(item.cluster for item in self.items.values())
        return {key: item.cluster for key, item in self.items.items() if item.cluster and sizes[item.cluster] > 1}


@dataclass(frozen=True)
class SpeedRecord:
    """Timed repetitions of one test, in seconds."""

    test: str
    tokens: int
    seconds: tuple[float, ...]
    first_token_seconds: tuple[float, ...] = ()
    """Of a prompt: until its next token was known."""
    joules: tuple[dict[str, float], ...] = ()
    """By repetition, then by source; empty where nothing counts energy."""
    anchor_seconds: float | None = None
    """The test once more after all others: the machine has changed where it differs."""

    @property
    def rates(self) -> tuple[float, ...]:
        """Tokens a second, by repetition."""
        return tuple(self.tokens / seconds for seconds in self.seconds)


@dataclass(frozen=True)
class MeasurementRecord:
    """The circumstances of a speed and memory measurement."""

    conditions: dict[str, Any]
    details: dict[str, Any]
    """load_seconds, open_seconds, states, energy_sources, buffers, predicted, context, layers, layer_count, reasons,
    devices, device_memory."""
    memory_methods: dict[str, str]


@dataclass(frozen=True)
class TextRecord:
    """One point run over a text, token by token."""

    conditions: dict[str, Any]
    """text (its name), text_sha256, n_ctx, chunks, stride, and of a divergence: reference, reference_sha256, exact."""
    windows: int
    scored: int
    """Tokens scored in each window."""
    window_bytes: tuple[int, ...]
    """Bytes of text that each window's scored tokens stand for."""
    columns: dict[str, npt.NDArray[Any]]
    """(windows x scored) values in order: ``nll`` in nats; with a reference also ``reference_nll``, ``kld``,
    ``kld_variance``, ``same_top`` and ``confidence`` (`gguf_eval.runtime.divergence.Compared`)."""
    noise: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Of a reference against itself, decoded in small batches: ``kld`` and ``same_top``."""
    peak_bytes: int | None = None
    """Peak resident memory of the process that ran it."""


@dataclass(frozen=True)
class AnswerDivergences:
    """One point beside one reference on the right answers of one task: one value an item."""

    reference_sha256: str
    reference_settings: dict[str, Any]
    items: tuple[str, ...]
    """Item hashes."""
    tokens: tuple[int, ...]
    kld: tuple[float | None, ...]
    """Mean over the answer's tokens, in nats; None where there is none."""
    kld_variance: tuple[float, ...]
    """Of the estimate in ``kld``, from the draws."""
    same_top: tuple[int, ...]
    """Tokens at which both find the same token most probable."""
    reasons: tuple[str | None, ...]
    """Why there is no divergence."""


@dataclass(frozen=True)
class Point:
    """One size-precision point: its file, how it is run, and what became of it."""

    id: int
    name: str
    model: str
    """Points of the same model are compared with one reference."""
    level: str
    sha256: str | None
    """None where the model file could not be made."""
    path: str
    architecture: str
    parameters: int
    size_bytes: int
    bits_per_weight: float
    origin: dict[str, Any]
    """Where the file came from: source hash and level, whether its source was quantized already; which model it is
    (`gguf_eval.files.identity`), whether the user named that, and what its name adds to the level; the recipe it was
    made by where that is no plain level."""
    settings: dict[str, Any]
    status: Status
    error: str | None
    log_path: str | None
    harness: dict[str, dict[str, float]] = field(default_factory=dict)
    """lm-evaluation-harness's own figures: by task, then by metric."""
    commands: tuple[str, ...] = ()
    """Of every run that evaluated the point, the first one first."""
    study: str = ""
    """The study it comes from, where several stand in one report."""
    names_study: bool = False
    """Whether another study has points of the same model, so that the label names the study."""

    @property
    def label(self) -> str:
        """What tells points of one model apart: `settings_label`, and the study where several have the model."""
        return f"{self.settings_label} @{self.study}" if self.names_study else self.settings_label

    @property
    def settings_label(self) -> str:
        """How the model is run: `settings_label_of`."""
        return settings_label_of(self.level, self.settings, self.origin)


@dataclass(frozen=True)
class PointRecord(Point):
    """One point and everything measured of it."""

    speed: tuple[SpeedRecord, ...] = ()
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes by kind, for instance ``peak_rss``."""
    outcomes: Mapping[str, Mapping[str, Outcome]] = field(default_factory=dict)
    """By task hash, then by item hash."""
    measurement: MeasurementRecord | None = None
    """Of ``speed`` and ``memory``."""
    environments: tuple[dict[str, Any], ...] = ()
    """Machine, packages and llama.cpp build of every run that evaluated the point."""
    texts: tuple[TextRecord, ...] = ()
    """The newest run over each text."""
    divergences: Mapping[str, tuple[AnswerDivergences, ...]] = field(default_factory=dict)
    """On right answers, by task hash; one for each reference."""

    @property
    def details(self) -> Mapping[str, Any]:
        """What else its measurement tells (`MeasurementRecord`); empty where it was not measured."""
        return self.measurement.details if self.measurement else {}

    @property
    def memory_methods(self) -> dict[str, str]:
        """How each kind of memory was read off."""
        return self.measurement.memory_methods if self.measurement else {}

    @property
    def is_answered(self) -> bool:
        """Whether it has an answer to any item."""
        return any(self.outcomes.values())

    def answers_to(self, task: TaskHead) -> Mapping[str, Outcome]:
        """Its outcomes on a task by item hash; empty where it has none."""
        return self.outcomes.get(task.hash, {})


def settings_label_of(level: str, settings: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    """How a model is run: its recipe or level, its variant, a KV cache that is not F16, how it is asked; as stored."""
    keys, values = settings.get("cache_type_k", "F16"), settings.get("cache_type_v", "F16")
    cache = EngineSettings(cache_type_k=keys, cache_type_v=values).cache_name
    return point_label(str(origin.get("recipe", level)), str(origin.get("variant", "")), cache, chat_name(settings))


def reference_rank(bits_per_weight: float, settings_label: str, level: str) -> tuple[float, bool]:
    """The others of a model are compared with its point of the highest rank, of those that have answers.

    That is the point of most bits, one with the KV cache in F16 and asked in the usual way where there is a choice.
    """
    return bits_per_weight, settings_label == level


@dataclass(frozen=True)
class StudyHead:
    """Which study it is."""

    path: str
    created_at: str
    command: str
    """The newest command that wrote to the study."""


@dataclass(frozen=True)
class StudySource(StudyHead):
    """One of several studies in a report."""

    environment: dict[str, Any]
    name: str


@dataclass(frozen=True)
class StudyRecord(StudyHead):
    """Everything in a study file."""

    environment: dict[str, Any]
    tasks: tuple[TaskRecord, ...]
    points: tuple[PointRecord, ...]
    sources: tuple[StudySource, ...] = ()
    """The studies it was put together from; empty where it is one file."""
    cautions: tuple[str, ...] = ()
    """What in them can't be compared."""
