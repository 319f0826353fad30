"""How often the intervals of a report hold the truth: 95 % is meant, 93 to 97 % is asked for.

    python benchmarks/coverage.py -o benchmarks/results/coverage.json
    python benchmarks/coverage.py --study SmolLM2.study.sqlite -o benchmarks/results/coverage.json

Each cell draws ``--rounds`` samples from a population whose mean is known, gives each to the function that a report
calls, and counts how often the interval holds that mean (``covers``), lies below it and above it. ``width`` is the
median. Without ``--study`` the populations are made up, hard ones among them; with it they are the stored outcomes of
a study: its items (or windows of its texts) are drawn with replacement, and their mean is the truth. Each part of the
result file is replaced by the run that makes it.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from coverage_populations import Values, divergences, graded_differences, graded_scores, log_score_pairs, made_up_text

from gguf_eval.analysis.divergence import Figure, summarise_text
from gguf_eval.analysis.intervals import ClusterCounts, macro_average, macro_difference
from gguf_eval.analysis.log_score import log_score_difference, log_scores
from gguf_eval.analysis.statistics import Estimate
from gguf_eval.analysis.summary import choose_reference
from gguf_eval.analysis.task_divergence import mean_with_interval, stored_divergences
from gguf_eval.store.outcomes import scored
from gguf_eval.store.read import read_study
from gguf_eval.store.records import PointRecord, StudyRecord, TaskRecord, TextRecord

Found = Estimate | Figure | None
Draw = Callable[[np.random.Generator], Found]
Cell = tuple[str, float, Draw]
"""Name, truth, and an interval from a new sample."""

SHARES = {
    "0.3 to 0.9": (0.3, 0.9), "0.9 to 1": (0.9, 1.0), "0.02 and 0.97": (0.02, 0.97), "all 0.8": (0.8, 0.8),
}  # fmt: skip
SIZES = ((1, 10), (1, 50), (1, 200), (5, 10), (5, 50), (10, 20), (25, 20), (57, 10), (57, 200))
"""Tasks and items of each."""
CHANGES = ((1.0, 1), (-1.0, 1), (0.0, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=2_000)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    parts: dict[str, Iterator[Cell]] = {}
    if args.study:
        studies = [read_study(path) for path in args.study]
        parts["real: scores and differences"] = (cell for study in studies for cell in real_tasks(study))
        parts["real: divergence of right answers"] = (cell for study in studies for cell in real_divergences(study))
        parts["real: log score differences"] = (cell for study in studies for cell in real_log_scores(study))
        parts["real: texts"] = (cell for study in studies for cell in real_texts(study))
    else:
        parts["scores of shares"] = shares()
        parts["differences of right-or-wrong answers"] = differences()
        parts["graded scores"] = graded(graded_scores(), macro_average)
        parts["graded differences"] = graded(graded_differences(), macro_difference)
        parts["by cluster"] = clusters()
        parts["skewed values, as divergences are"] = skewed()
        parts["log score differences"] = log_score_differences(log_score_pairs())
        parts["texts"] = texts()
    document = json.loads(args.output.read_text(encoding="utf-8")) if args.output and args.output.exists() else {}
    for name, cells in parts.items():
        found = {cell: measure(truth, draw, args.rounds) for cell, truth, draw in cells}
        if not found:
            continue
        document[name] = found
        covers = [found["covers"] for found in document[name].values() if found["covers"] is not None]
        inside = sum(0.93 <= value <= 0.97 for value in covers)
        print(f"{name}: {len(covers)} cells, {inside} within 93 to 97 %, from {min(covers):.1%} to {max(covers):.1%}")
    if args.output:
        args.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def measure(truth: float, draw: Draw, rounds: int) -> dict[str, Any]:
    """Shares of the samples; those without an interval are counted apart, and in no other share."""
    random = np.random.default_rng(0)
    bounds = []
    for _ in range(rounds):
        found = draw(random)
        if found is not None and found.low is not None and found.high is not None:
            bounds.append((found.low, found.high))
    if not bounds:
        return {"truth": truth, "covers": None, "without": 1.0}
    low, high = np.array(bounds).T
    slack = 1e-12
    return {
        "truth": round(truth, 6),
        "covers": round(float(((low <= truth + slack) & (truth - slack <= high)).mean()), 4),
        "below": round(float((high < truth - slack).mean()), 4),
        "above": round(float((low > truth + slack).mean()), 4),
        "width": round(float(np.median(high - low)), 6),
        "without": round(1 - len(bounds) / rounds, 4),
    }


def counts_of(values: Values) -> ClusterCounts:
    return dict(Counter((value, 1) for value in values.tolist()))


def shares() -> Iterator[Cell]:
    """Right-or-wrong answers; truths within the span named."""
    for tasks, items in SIZES:
        for name, (low, high) in SHARES.items():
            truths = np.linspace(low, high, tasks) if tasks > 1 else np.array([(low + high) / 2])
            if name == "0.02 and 0.97":
                truths = np.where(np.arange(tasks) % 2, low, high)

            def draw(random: np.random.Generator, truths: Values = truths, items: int = items) -> Found:
                right = random.binomial(items, truths).tolist()
                return macro_average([{(1.0, 1): count, (0.0, 1): items - count} for count in right])

            yield f"{tasks} x {items}, {name}", float(truths.mean()), draw


def differences() -> Iterator[Cell]:
    """Shares of answers that turn right and wrong; of the last, each task has its own."""
    for tasks, items in SIZES:
        for gain, loss in ((0.1, 0.1), (0.05, 0.15), (0.02, 0.03), (0.0, 0.1), (0.01, 0.3), (-1.0, -1.0)):
            spread = np.linspace(0, 1, tasks) if tasks > 1 else np.array([0.5])
            gained, lost = (0.1 * spread, 0.4 * spread[::-1]) if gain < 0 else (gain + 0 * spread, loss + 0 * spread)
            table = np.column_stack([gained, lost, 1 - gained - lost])

            def draw(random: np.random.Generator, table: Values = table, items: int = items) -> Found:
                counts = random.multinomial(items, table).tolist()
                return macro_difference([dict(zip(CHANGES, row, strict=True)) for row in counts])

            name = "up to 0.1 and 0.4" if gain < 0 else f"{gain:g} and {loss:g}"
            yield f"{tasks} x {items}, {name}", float((gained - lost).mean()), draw


def graded(
    populations: dict[str, Values],
    interval: Callable[[Sequence[ClusterCounts]], Found],
    sizes: Sequence[tuple[int, int]] = (),
) -> Iterator[Cell]:
    for tasks, items in sizes or ((1, 10), (1, 20), (1, 50), (1, 200), (5, 10), (5, 50), (25, 20)):
        for name, values in populations.items():

            def draw(random: np.random.Generator, v: Values = values, shape: Any = (tasks, items)) -> Found:
                return interval([counts_of(row) for row in random.choice(v, shape)])

            yield f"{tasks} x {items}, {name}", float(values.mean()), draw


def clusters() -> Iterator[Cell]:
    """Items of a cluster are alike with the probability named."""
    for count, size in ((20, 5), (60, 4), (100, 3)):
        for alike in (0.2, 0.5, 0.9):
            name, shape = f"{count} x {size}, alike {alike:g}", (count, size, alike)
            yield f"score, {name}", 0.7, partial(_of_clusters, macro_average, ((1.0, 0.0), (0.7, 0.3)), shape)
            changes = ((1.0, -1.0, 0.0), (0.1, 0.2, 0.7))
            yield f"difference, {name}", -0.1, partial(_of_clusters, macro_difference, changes, shape)


def _of_clusters(
    interval: Callable[[Sequence[ClusterCounts]], Found],
    values: tuple[Sequence[float], Sequence[float]],
    shape: tuple[int, int, float],
    random: np.random.Generator,
) -> Found:
    count, size, alike = shape
    own, shared = (random.choice(values[0], (count, width), p=values[1]) for width in (size, 1))
    sums = np.where(random.random((count, 1)) < alike, shared, own).sum(axis=1)
    return interval([dict(Counter((total, size) for total in sums.tolist()))])


def divergence_interval(parts: Sequence[ClusterCounts]) -> Figure:
    return mean_with_interval(parts[0])[0]


def skewed() -> Iterator[Cell]:
    yield from graded(divergences(), divergence_interval, [(1, n) for n in (30, 50, 100, 200, 500)])


def log_score_differences(tables: dict[str, Values]) -> Iterator[Cell]:
    for tasks, items in ((1, 10), (1, 20), (1, 30), (1, 50), (1, 100), (1, 200), (5, 10), (5, 50), (25, 20)):
        for name, table in tables.items():
            truth = float((table[:, 0] - table[:, 1]).mean())
            yield f"{tasks} x {items}, {name}", truth, partial(_of_log_scores, [table] * tasks, items)


def _of_log_scores(tables: Sequence[Values], items: int, random: np.random.Generator) -> Found:
    """The function that reports call, given the same drawn items of both."""
    own, base, tasks = {}, {}, []
    for number, table in enumerate(tables):
        rows = table[random.integers(0, len(table), items)]
        tasks.append(TaskRecord(str(number), "task", "", "", 1, "acc", ("acc",), {}))
        own[str(number)], base[str(number)] = (
            dict(zip(map(str, range(items)), column, strict=True)) for column in rows.T.tolist()
        )
    return log_score_difference(own, base, tasks)


def figures(record: TextRecord) -> dict[str, Figure]:
    """What a report shows of a text with an interval."""
    found = summarise_text(record)
    shown = {"PPL": found.perplexity, "bits per byte": found.bits_per_byte}
    divergence = found.divergence
    if divergence is None:
        return shown
    bands = {f"KLD where {band.low:g} to {band.high:g}": band.mean for band in divergence.by_confidence if band.mean}
    return shown | {
        "mean KLD": divergence.mean, "PPL ratio": divergence.perplexity_ratio, "same top": divergence.same_top,
        "change rms": divergence.change_rms, **{f"KLD {name}": one for name, one in divergence.quantiles.items()},
        **{f"change {name}": one for name, one in divergence.change_quantiles.items()}, **bands,
    }  # fmt: skip


def of_texts(population: TextRecord, sizes: Sequence[int], label: str) -> Iterator[Cell]:
    """Windows of a long text, drawn with replacement; every figure of a drawn text is looked at."""
    truths = figures(population)
    tables = {name: column.reshape(population.windows, -1) for name, column in population.columns.items()}
    for windows in sizes:
        drawn: dict[bytes, dict[str, Figure]] = {}
        for name, truth in truths.items():
            draw = partial(_of_a_text, population, tables, windows, name, drawn)
            yield f"{label}, {windows} windows, {name}", truth.value, draw


def _of_a_text(
    population: TextRecord,
    tables: dict[str, Any],
    windows: int,
    name: str,
    drawn: dict[bytes, dict[str, Figure]],
    random: np.random.Generator,
) -> Found:
    """One figure; those of a text that another figure had drawn are kept in ``drawn``."""
    rows = random.integers(0, population.windows, windows)
    if rows.tobytes() not in drawn:
        columns = {column: table[rows].ravel() for column, table in tables.items()}
        window_bytes = tuple(population.window_bytes[row] for row in rows)
        text = replace(population, windows=windows, window_bytes=window_bytes, columns=columns)
        drawn[rows.tobytes()] = figures(text)
    return drawn[rows.tobytes()].get(name)


def texts() -> Iterator[Cell]:
    yield from of_texts(made_up_text(), (5, 12, 40), "made up")


def pairs(study: StudyRecord) -> Iterator[tuple[PointRecord, PointRecord]]:
    for model in dict.fromkeys(point.model for point in study.points):
        members = [point for point in study.points if point.model == model]
        reference = choose_reference(members)
        if reference is not None:
            yield from ((point, reference) for point in members if point is not reference)


def paired_values(point: PointRecord, reference: PointRecord, task: TaskRecord) -> Values:
    """(items x 2) scores of both on the items that both scored."""
    own, other = scored(point.answers_to(task)), scored(reference.answers_to(task))
    rows = [(own[key], other[key]) for key in own if key in other]
    return np.array(rows, np.float64).reshape(-1, 2)


def real_tasks(study: StudyRecord) -> Iterator[Cell]:
    """Each task by itself, then the means over all tasks of the study."""
    for point, reference in pairs(study):
        tables = {task.name: paired_values(point, reference, task) for task in study.tasks}
        tables = {name: table for name, table in tables.items() if len(table) >= 40}
        for name, chosen in {
            **{name: [table] for name, table in tables.items()},
            "all tasks": [*tables.values()],
        }.items():
            for items in (10, 20, 50, 100) if len(chosen) == 1 else (10, 20, 50):
                means = np.mean([table.mean(axis=0) for table in chosen], axis=0)
                label = f"{point.level}, {name}, {len(chosen)} x {items}"
                yield f"score of {label}", float(means[0]), partial(_of_tasks, chosen, items, False)
                if any((table[:, 0] != table[:, 1]).any() for table in chosen):
                    truth = float(means[0] - means[1])
                    yield f"difference of {label}", truth, partial(_of_tasks, chosen, items, True)


def _of_tasks(tables: Sequence[Values], items: int, change: bool, random: np.random.Generator) -> Found:
    rows = [table[random.integers(0, len(table), items)] for table in tables]
    if change:
        return macro_difference([counts_of(row[:, 0] - row[:, 1]) for row in rows])
    return macro_average([counts_of(row[:, 0]) for row in rows])


def real_log_scores(study: StudyRecord) -> Iterator[Cell]:
    """Each task by itself, then the mean over all tasks of the study."""
    for point, reference in pairs(study):
        tables = {}
        for task in study.tasks:
            own, base = log_scores(point, task), log_scores(reference, task)
            table = np.array([(own[key], base[key]) for key in own if key in base], np.float64).reshape(-1, 2)
            if len(table) >= 60 and (table[:, 0] != table[:, 1]).any():
                tables[task.name] = table
        chosen = {name: [table] for name, table in tables.items()}
        if len(tables) > 1:
            chosen["all tasks"] = [*tables.values()]
        for name, parts in chosen.items():
            truth = float(np.mean([(table[:, 0] - table[:, 1]).mean() for table in parts]))
            for items in (10, 30, 50, 100, 200) if len(parts) == 1 else (10, 20, 50):
                label = f"{point.level}, {name}, {len(parts)} x {items}"
                yield label, truth, partial(_of_log_scores, parts, items)


def real_divergences(study: StudyRecord) -> Iterator[Cell]:
    for point, reference in pairs(study):
        for task in study.tasks:
            stored = stored_divergences(point, reference, task.hash)
            values = np.array([kld for kld in stored.kld if kld is not None]) if stored else np.empty(0)
            if len(values) >= 60:
                sizes = [(1, items) for items in (30, 50, 100)]
                cells = graded({f"{task.name}, {point.level}": values}, divergence_interval, sizes)
                yield from cells


def real_texts(study: StudyRecord) -> Iterator[Cell]:
    for point in study.points:
        for record in point.texts:
            if record.windows >= 30:
                yield from of_texts(record, (5, 12, 40), f"{point.level}, {record.conditions['text']}")


if __name__ == "__main__":
    main()
