"""Studies that look like real ones, of any size and always the same, written through the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gguf_eval.files.model_file import ModelFile
from gguf_eval.store.records import Outcome, TextRecord
from gguf_eval.store.write import StudyWriter
from gguf_eval.tasks.prompts import Item, make_item
from gguf_eval.tasks.spec import Dataset, Prompt, Task

LEVELS = (
    ("F16", 16.0, 0.0), ("Q8_0", 8.5, 0.004), ("Q6_K", 6.56, 0.008), ("Q5_K_M", 5.68, 0.014), ("Q4_K_M", 4.85, 0.025),
    ("Q3_K_M", 3.89, 0.06), ("Q2_K", 3.0, 0.13), ("IQ1_S", 1.75, 0.3),
)  # fmt: skip
"""Level, bits per weight, and the share of answers that change against the reference."""
SIZES = (("Llama-3.2-1B", 1.24e9, 0.52), ("Llama-3.2-3B", 3.21e9, 0.61), ("Llama-3.1-8B", 8.03e9, 0.69))
"""Name, parameters, and accuracy of the reference."""
GROUPS = ("understanding", "reasoning", "misinformation", "hallucination")
TEXT = (
    "river stone never before window carries slow engine winter paper answer green doctor village question under "
    "morning small electric history often number city because water music teacher against letter field moves light"
)
WORDS = tuple(TEXT.split())


def write_study(
    path: Path,
    *,
    levels: int = 8,
    sizes: int = 3,
    tasks: int = 30,
    items: int = 500,
    seed: int = 0,
    drift: float = 0.0,
    hostile: Sequence[str] = (),
    texts: int = 0,
    aggregates: Sequence[str] = (),
) -> Path:
    """Write a study of ``levels`` x ``sizes`` points on ``tasks`` x ``items`` items.

    ``drift`` is the share of right answers turned wrong at every point but the references: the same study on a worse
    build. ``hostile`` texts stand in names, questions, choices and reasons. ``texts`` is the number of texts that every
    point is run over, ``aggregates`` what the first task has beyond its mean.
    """
    rng = np.random.default_rng(seed)
    names = [f"{hostile[i % len(hostile)]}{i}" if hostile else f"task_{i:02d}" for i in range(tasks)]
    work = [(_task(name, i), _items(rng, name, items, hostile)) for i, name in enumerate(names)]
    work[:1] = [(replace(task, aggregates=tuple(aggregates)), asked) for task, asked in work[:1]]
    with StudyWriter(path) as study:
        environment = {
            "machine": {"processor": hostile[0] if hostile else "Example processor", "physical_cores": 8},
            "packages": {"gguf-eval": "0.1.0", "llama-cpp-python": "0.3.36"},
        }
        run = study.begin_run("gguf-eval run " + " ".join(name for name, _, _ in SIZES[:sizes]), environment)
        for task, asked in work:
            study.save_task(task, asked, run)
        for size, (model, parameters, accuracy) in enumerate(SIZES[:sizes]):
            model_name = f"{hostile[size % len(hostile)]}{model}" if hostile else model
            base = [rng.random(len(asked)) < accuracy for _, asked in work]
            for level, bits, changed in LEVELS[:levels]:
                loss = changed + (drift if changed else 0.0)
                point = _point(study, model_name, int(parameters), level, bits, [task.hash for task, _ in work])
                for (task, asked), right in zip(work, base, strict=True):
                    answers = _degraded(rng, right, loss)
                    study.save_outcomes(point, task.hash, _outcomes(rng, asked, answers, hostile))
                for number in range(texts):
                    study.save_text(point, _text(rng, f"{_any(hostile, number)}text{number}", changed))
                study.save_point_run(point, run)
                _measure(study, rng, point, parameters * bits / 8)
    return path


def _any(hostile: Sequence[str], number: int) -> str:
    return hostile[number % len(hostile)] if hostile else ""


def _text(rng: np.random.Generator, name: str, changed: float) -> TextRecord:
    """A run over a text of 8 windows; ``changed`` is 0 for the reference."""
    nll = rng.gamma(2.0, 1.2, size=256)
    columns = {"nll": nll}
    if changed:
        kld = rng.gamma(0.5, 2 * changed, size=256)
        columns |= {"reference_nll": nll - rng.normal(0.0, changed, 256), "kld": kld, "kld_variance": np.zeros(256),
                    "same_top": (rng.random(256) > changed).astype(float), "confidence": rng.random(256)}  # fmt: skip
    conditions = {"text": name, "text_sha256": f"{hash_text(name):064x}", "n_ctx": 64, "chunks": 8, "stride": None,
                  "reference": LEVELS[0][0], "reference_sha256": "0" * 64, "exact": True}  # fmt: skip
    return TextRecord(conditions, 8, 32, (120,) * 8, columns)


def _task(name: str, number: int) -> Task:
    return Task(
        name=name, version=1, kind="choice", title=f"Title of {name}", description="", group=GROUPS[number % 4],
        metric="acc", metrics=("acc", "acc_norm", "acc_token_norm"), licence="", paper="",
        dataset=Dataset(), prompt=Prompt(("",), ("a", "b"), "0"), path=Path(f"{number}.toml"), hash=f"{number:064x}",
    )  # fmt: skip


def _items(rng: np.random.Generator, task: str, count: int, hostile: Sequence[str]) -> list[Item]:
    made = []
    for i in range(count):
        words = rng.choice(WORDS, size=100)
        text = " ".join(words[:60]) + f" {i}?"
        if hostile:
            text = f"{hostile[i % len(hostile)]} {text}"
        choices = tuple(f"{' '.join(words[60 + 8 * c : 68 + 8 * c])} {c}" for c in range(4))
        if hostile:
            choices = tuple(f"{hostile[(i + c) % len(hostile)]} {choice}" for c, choice in enumerate(choices))
        made.append(make_item(f"{task}-{i}", (text,), choices, (int(rng.integers(4)),), " "))
    return made


def _degraded(rng: np.random.Generator, right: np.ndarray, changed: float) -> np.ndarray:
    """Answers of a level: some right ones turn wrong, half as many wrong ones right."""
    draw = rng.random(len(right))
    return np.where(right, draw >= changed, draw < changed / 2)


def _outcomes(
    rng: np.random.Generator, items: Sequence[Item], right: np.ndarray, hostile: Sequence[str]
) -> list[Outcome]:
    logprobs = -rng.gamma(4.0, 6.0, size=(len(items), 4))
    unscored = rng.random(len(items)) < 0.002
    outcomes = []
    for item, good, row, broken in zip(items, right, logprobs, unscored, strict=True):
        if broken:
            reason = hostile[0] if hostile else "the request is longer than the context"
            outcomes.append(Outcome(item.hash, None, None, {}, (), (8, 8, 8, 8), 0, reason))
            continue
        answer = item.gold if good else (item.gold + 1) % 4
        metrics = {"acc": float(good), "acc_norm": float(good), "acc_token_norm": float(row[0] > row[1])}
        outcomes.append(Outcome(item.hash, float(good), answer, metrics, tuple(row.tolist()), (8, 8, 8, 8)))
    return outcomes


def _point(study: StudyWriter, model: str, parameters: int, level: str, bits: float, task_hashes: Sequence[str]) -> int:
    size = int(parameters * bits / 8)
    sha = f"{abs(hash_text(model + level)):064x}"
    file = ModelFile(Path(f"{model}-{level}.gguf"), sha, "llama", parameters, size, level, bits, 131072)
    point = study.save_point(f"{model} {level}", model, {}, file, {"source_level": "F16", "requantized": False})
    study.plan_point(point, task_hashes, speed=True)
    return point


def hash_text(text: str) -> int:
    """The same number for the same text in every process."""
    import zlib

    return zlib.crc32(text.encode())


def _measure(study: StudyWriter, rng: np.random.Generator, point: int, size: float) -> None:
    measurement = study.begin_measurement(point, {"n_ctx": 4096})
    for test, tokens, rate in (("pp512", 512, 2e12 / size), ("tg128", 128, 6e10 / size)):
        for repetition in range(3):
            seconds = tokens / (rate * rng.normal(1.0, 0.02))
            study.save_speed_sample(measurement, test, repetition, tokens, float(seconds))
    memory = {"peak_rss": int(size + 6e8)}
    study.finish_measurement(measurement, {kind: (value, "VmHWM") for kind, value in memory.items()})
