"""What a worker process is asked to do: self-contained, serialisable descriptions with one result stream each.

A job is one JSON document; its results are JSON lines, each an object with an ``event``. Nothing else passes between
parent and worker, so that a job can be run anywhere the model file is.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gguf_eval.files.recipes import Recipe
from gguf_eval.runtime.settings import (
    ChatSettings,
    EngineSettings,
    Offload,
    engine_from_document,
    offload_from_document,
)


@dataclass(frozen=True)
class ScoreJob:
    """Score the choices of items. Events: ``build``, ``start``, ``scores``, ``again``, ``answers``."""

    model: str
    tasks: tuple[TaskWork, ...]
    max_tokens: int | None
    batch_size: int
    threads: int | None
    engine: EngineSettings
    kind: Literal["score"] = "score"
    chat: ChatSettings = field(default_factory=ChatSettings)
    answers: AnswersWork | None = None
    """What is done beside with the distributions over the right answers; nothing unless given."""
    again: tuple[TaskWork, ...] = ()
    """Items that are scored already, of which only the right answer is asked, for ``answers``."""


@dataclass(frozen=True)
class AnswersWork:
    """Where the reference's distributions over right answers lie, and what is done with them."""

    folder: str
    reference_sha256: str
    reference_settings: dict[str, Any]
    keep: bool
    """The model is the reference, whose distributions are kept; else it is compared with them."""


@dataclass(frozen=True)
class GenerateJob:
    """Have answers written. Events: ``build``, ``start``, ``answers``."""

    model: str
    tasks: tuple[TaskWork, ...]
    settings: tuple[GenerationWork, ...]
    """One for each task."""
    max_tokens: int | None
    batch_size: int
    threads: int | None
    engine: EngineSettings
    kind: Literal["generate"] = "generate"
    chat: ChatSettings = field(default_factory=ChatSettings)


@dataclass(frozen=True)
class ShowJob:
    """Say what a model would be asked; nothing is computed. Events: ``prompts``."""

    model: str
    work: TaskWork
    task_kind: str
    chat: ChatSettings
    kind: Literal["show"] = "show"


@dataclass(frozen=True)
class GenerationWork:
    """How the answers of a task are written."""

    max_tokens: int
    stop: tuple[str, ...]
    temperature: float
    top_p: float
    seed: int
    chat_stop: tuple[str, ...]
    """In place of ``stop`` in a conversation."""


@dataclass(frozen=True)
class HeaderWork:
    """What stands before the contexts of items: text, or a system message and earlier turns of a chat."""

    description: str
    examples: tuple[tuple[str, str], ...]
    """(question, answer) of each few-shot example."""
    delimiter: str
    separator: str

    @property
    def text(self) -> str:
        """The header as plain text."""
        return self.description + self.shown

    @property
    def shown(self) -> str:
        """The examples as plain text."""
        return "".join(f"{question}{self.delimiter}{answer}{self.separator}" for question, answer in self.examples)


@dataclass(frozen=True)
class PromptWork:
    """What is asked of one item."""

    header: int
    """Place in the headers of the task's work."""
    contexts: tuple[str, ...]
    """One, or one for each choice."""
    choices: tuple[str, ...]
    """The texts to score; none where the model is to write."""
    right: int = 0
    """Place of the (first) right choice."""


@dataclass(frozen=True)
class TaskWork:
    """Items of one task."""

    task_hash: str
    item_hashes: tuple[str, ...]
    prompts: tuple[PromptWork, ...]
    """One for each item."""
    headers: tuple[HeaderWork, ...]
    delimiter: str
    """Between context and choice."""


@dataclass(frozen=True)
class SpeedJob:
    """Measure speed and memory. Events: ``build``, ``sample``, ``memory``, ``details``."""

    model: str
    n_ctx: int
    prompt_tokens: tuple[int, ...]
    generated_tokens: tuple[int, ...]
    repetitions: int
    threads: int | None
    engine: EngineSettings
    depths: tuple[int, ...] = (0,)
    batch_size: int = 2048
    ubatch_size: int = 512
    min_ctx: int | None = None
    """The context may be reduced to so many tokens where that lets more layers fit, or the model at all."""
    kind: Literal["speed"] = "speed"


@dataclass(frozen=True)
class TextJob:
    """Run a model over a text. Events: ``build``, ``plan``, ``rows``, ``peak``."""

    model: str
    text: str
    """Path of the text file."""
    n_ctx: int
    chunks: int | None
    stride: int | None
    batch_size: int
    threads: int | None
    engine: EngineSettings
    model_sha256: str
    write_reference: str = ""
    """Folder to store the model's distributions in, as what candidates are compared with."""
    reference_folder: str = ""
    """Folder with the stored distributions of ``reference_sha256``: the divergence from it is computed too."""
    reference_sha256: str = ""
    reference_settings: dict[str, Any] = field(default_factory=dict)
    """What changes the reference's answers, as in a point's settings."""
    reference_model: str = ""
    """Path of a reference that is run beside the model, window by window: exact, and twice the work."""
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class QuantizeJob:
    """Make a model file by a recipe. Events: none; it is there when the job ends well."""

    source: str
    output: str
    recipe: Recipe
    allow_requantize: bool
    threads: int | None
    kind: Literal["quantize"] = "quantize"


@dataclass(frozen=True)
class CalibrateJob:
    """Decode for a few seconds. Events: ``ready``, ``rates``."""

    model: str
    threads: int | None
    engine: EngineSettings
    text: str
    """What is asked, some of it: how many characters a token stands for."""
    kind: Literal["calibrate"] = "calibrate"


@dataclass(frozen=True)
class BuildJob:
    """Say which llama.cpp this is and what devices it finds. Events: ``build``, ``devices``."""

    offload: Offload = field(default_factory=Offload)
    """Refused where it can't be had."""
    kind: Literal["build"] = "build"


@dataclass(frozen=True)
class FootprintJob:
    """Say what llama.cpp would reserve for a model. Events: ``footprint``, by the header, then by llama.cpp."""

    model: str
    n_ctx: int | None
    engine: EngineSettings
    kind: Literal["footprint"] = "footprint"


Job = ScoreJob | GenerateJob | ShowJob | TextJob | SpeedJob | QuantizeJob | CalibrateJob | BuildJob | FootprintJob


def to_document(job: Job) -> dict[str, Any]:
    """The job as JSON-ready values."""
    return asdict(job)


def from_document(document: dict[str, Any]) -> Job:
    """The job that `to_document` wrote, after JSON has made lists of its tuples."""
    kinds: dict[str, type[Job]] = {
        "score": ScoreJob,
        "generate": GenerateJob,
        "show": ShowJob,
        "text": TextJob,
        "speed": SpeedJob,
        "quantize": QuantizeJob,
        "calibrate": CalibrateJob,
        "build": BuildJob,
        "footprint": FootprintJob,
    }
    fields = dict(document)
    if "engine" in fields:
        fields["engine"] = engine_from_document(fields["engine"])
    if "chat" in fields:
        fields["chat"] = ChatSettings(**fields["chat"])
    if "offload" in fields:
        fields["offload"] = offload_from_document(fields["offload"])
    if fields["kind"] == "speed":
        fields |= {name: tuple(fields[name]) for name in ("prompt_tokens", "generated_tokens", "depths")}
    if "recipe" in fields:
        types = tuple((pattern, kind) for pattern, kind in fields["recipe"]["tensor_types"])
        fields["recipe"] = Recipe(**{**fields["recipe"], "tensor_types": types})
    for name in ("tasks", "again"):
        if name in fields:
            fields[name] = tuple(_task_work(work) for work in fields[name])
    if fields.get("answers"):
        fields["answers"] = AnswersWork(**fields["answers"])
    if "work" in fields:
        fields["work"] = _task_work(fields["work"])
    if fields["kind"] == "generate":
        fields["settings"] = tuple(
            GenerationWork(**{**s, "stop": tuple(s["stop"]), "chat_stop": tuple(s["chat_stop"])})
            for s in fields["settings"]
        )
    return kinds[fields["kind"]](**fields)


def _task_work(work: dict[str, Any]) -> TaskWork:
    return TaskWork(
        task_hash=work["task_hash"],
        item_hashes=tuple(work["item_hashes"]),
        prompts=tuple(
            PromptWork(p["header"], tuple(p["contexts"]), tuple(p["choices"]), p["right"]) for p in work["prompts"]
        ),
        headers=tuple(
            HeaderWork(
                h["description"], tuple((question, answer) for question, answer in h["examples"]),
                h["delimiter"], h["separator"],
            )
            for h in work["headers"]
        ),
        delimiter=work["delimiter"],
    )  # fmt: skip
