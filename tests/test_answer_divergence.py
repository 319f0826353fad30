"""KL divergence on right answers while tasks are scored: kept by the reference, compared by the others, resumed."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import write_rows
from listening import Listening
from quantize_fixtures import write_model

from gguf_eval.analysis.summary import summarise
from gguf_eval.errors import EngineError
from gguf_eval.runtime.answer_file import AnswerFile, AnswerKey, held_items, tokens_digest
from gguf_eval.runtime.answers import BROKEN, NOT_KEPT, OTHER_TOKENS, AnswerDivergence, ComparedAnswers, KeptAnswers
from gguf_eval.runtime.divergence import SlopeFit, compare_exactly, compare_with_stored, condense, reference_dtype
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.rows import Rows
from gguf_eval.runtime.scoring import Request, Scorer, encode_pair
from gguf_eval.runtime.settings import ContextSettings
from gguf_eval.store.read import read_study
from gguf_eval.store.records import PointRecord
from gguf_eval.study.events import Advanced, Event
from gguf_eval.study.job import Job
from gguf_eval.study.plan import make_plan
from gguf_eval.study.points import RunRequest
from gguf_eval.study.process import run_in_worker
from gguf_eval.study.run import run_study

ROWS = [
    {"question": f"after {i} the cat", "options": ["sat in the house", "ran", "and the rain"], "right": i % 3}
    for i in range(6)
]
TASK = """
name = "few"
version = 1
kind = "choice"
[dataset]
file = "few.jsonl"
[prompt]
context = "{{ question }}"
choices = "options"
gold = "right"
"""


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def request_(tmp_path: Path, model_path: Path) -> RunRequest:
    write_rows(tmp_path / "few.jsonl", ROWS)
    (tmp_path / "few.toml").write_text(TASK, encoding="utf-8")
    return RunRequest(
        models=(model_path,), study=tmp_path / "s.sqlite", levels=("Q4_0", "F32"), tasks=(str(tmp_path / "few.toml"),),
        speed=False, threads=1, cache=tmp_path / "cache",
    )  # fmt: skip


def run(request: RunRequest) -> tuple[Listening, dict[str, PointRecord]]:
    observer = Listening()
    assert run_study(make_plan(request), observer), observer.failures
    assert observer.planned == observer.asked
    return observer, {point.level: point for point in read_study(request.study).points}


def stored(point: PointRecord) -> dict[str, float | None]:
    (per_task,) = point.divergences.values()
    (one,) = per_task
    return dict(zip(one.items, one.kld, strict=True))


def exactly(reference: Path, candidate: Path, items: dict[str, tuple[str, str]]) -> dict[str, float]:
    """The slow way: each sequence alone, the whole sum over the vocabulary in float64."""
    settings = ContextSettings(n_ctx=256, batch_size=256, ubatch_size=256, threads=1)
    found: dict[str, list[np.ndarray]] = {item: [] for item in items}
    for path in (reference, candidate):
        with Model(path) as model:
            for item, pair in items.items():
                context, answer = encode_pair(model, *pair)
                tokens = np.array((context + answer)[:-1], np.int32)
                count = len(tokens)
                with model.open_context(settings) as alone:
                    alone.decode(tokens, np.arange(count, dtype=np.int32), [(0,)] * count, np.ones(count, np.int8))
                    logits = alone.logits(count)[len(context) - 1 :].astype(np.float64)
                found[item].append(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    return {item: float((np.exp(p) * (p - q)).sum(axis=1).mean()) for item, (p, q) in found.items()}


def test_what_is_stored_is_the_divergence_on_the_right_answers_tokens(request_: RunRequest) -> None:
    observer, points = run(request_)
    assert [label for label, _ in observer.asked] == [
        "tiny F32: few",
        "tiny Q4_0: few",
    ]  # the reference first, in one pass
    (task,) = read_study(request_.study).tasks
    items = {hash_: (item.contexts[0], " " + item.choices[item.gold]) for hash_, item in task.items.items()}
    exact = exactly(Path(points["F32"].path), Path(points["Q4_0"].path), items)
    found = stored(points["Q4_0"])
    assert found == pytest.approx(exact, rel=0.05, abs=1e-4)
    assert np.mean(list(found.values())) == pytest.approx(np.mean(list(exact.values())), rel=0.02)
    assert points["F32"].divergences == {}
    (one,), *_ = points["Q4_0"].divergences.values()
    assert (one.reference_sha256, one.reference_settings) == (points["F32"].sha256, points["F32"].settings)
    outcomes = points["Q4_0"].outcomes[task.hash]
    counts = {hash_: outcomes[hash_].token_counts[item.gold] for hash_, item in task.items.items()}
    assert dict(zip(one.items, one.tokens, strict=True)) == counts
    summary = {point.level: point.tasks["few"].divergence for point in summarise(read_study(request_.study)).points}
    assert summary["F32"] is None
    assert summary["Q4_0"] is not None
    assert summary["Q4_0"].mean.value == pytest.approx(np.mean(list(found.values())))
    assert (summary["Q4_0"].items, summary["Q4_0"].left_out) == (6, 0)


def test_nothing_is_asked_twice_and_a_level_that_comes_later_needs_no_second_reference(request_: RunRequest) -> None:
    _, before = run(request_)
    assert run(request_)[0].asked == []
    observer, points = run(replace(request_, levels=("Q8_0",)))
    assert observer.asked == [("tiny Q8_0: few", 6)]
    assert stored(points["Q4_0"]) == stored(before["Q4_0"])
    assert len(stored(points["Q8_0"])) == 6
    assert all(value is not None and value < 0.01 for value in stored(points["Q8_0"]).values())


def test_a_reference_that_was_scored_alone_is_asked_its_right_answers_again(request_: RunRequest) -> None:
    _, alone = run(replace(request_, levels=("F32",)))
    observer, points = run(request_)
    assert observer.asked == [("tiny F32: right answers", 6), ("tiny Q4_0: few", 6)]
    assert len(stored(points["Q4_0"])) == 6
    (task,) = alone["F32"].outcomes
    assert dict(points["F32"].outcomes[task]) == dict(alone["F32"].outcomes[task])


def test_what_was_interrupted_is_completed(request_: RunRequest, tmp_path: Path) -> None:
    """Rows lost on either side are asked again, those items only; what is there stays as it is."""
    _, before = run(request_)
    (file,) = (tmp_path / "cache" / "references").glob("*.answers")
    lost, kept = sorted(stored(before["Q4_0"]))[:2], sorted(stored(before["Q4_0"]))[2:]
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DELETE FROM answer WHERE item = ?", (lost[0],))
    with closing(sqlite3.connect(request_.study)) as connection, connection:
        connection.executemany("DELETE FROM answer_divergence WHERE item_hash = ?", [(item,) for item in lost])
    observer, after = run(request_)
    assert observer.asked == [("tiny F32: right answers", 1), ("tiny Q4_0: right answers", 2)]
    assert {item: stored(after["Q4_0"])[item] for item in kept} == {item: stored(before["Q4_0"])[item] for item in kept}
    for item in lost:
        assert stored(after["Q4_0"])[item] == pytest.approx(stored(before["Q4_0"])[item], rel=0.05)


class Interrupting(Listening):
    """Interrupts the run as soon as it is told of anything that was answered."""

    def tell(self, event: Event) -> None:
        if isinstance(event, Advanced) and event.kind == "score":
            raise KeyboardInterrupt


def test_a_run_that_is_interrupted_at_every_batch_ends_as_one_that_was_not(request_: RunRequest) -> None:
    small = replace(request_, batch_size=96)
    interruptions = 0
    for _ in range(40):
        try:
            assert run_study(make_plan(small), Interrupting())
            break
        except KeyboardInterrupt:
            interruptions += 1
    assert 3 <= interruptions < 40
    observer, points = run(small)
    assert observer.asked == []
    assert not observer.notes
    whole = replace(small, study=small.study.with_name("whole.sqlite"), cache=small.study.with_name("other cache"))
    expected = stored(run(whole)[1]["Q4_0"])
    assert len(expected) == 6
    assert stored(points["Q4_0"]) == pytest.approx(expected, rel=0.02, abs=1e-5)


def test_a_deleted_cache_is_only_made_again_where_it_is_needed(request_: RunRequest, tmp_path: Path) -> None:
    run(request_)
    for file in (tmp_path / "cache" / "references").iterdir():
        file.unlink()
    assert run(request_)[0].asked == []
    observer, points = run(replace(request_, levels=("Q8_0",)))  # the reference is not in this run
    assert observer.notes == [f"tiny Q8_0: no KL divergence from F32 on 6 answers of few: {NOT_KEPT}"]
    assert points["Q8_0"].divergences == {}
    summary = {point.level: point.tasks["few"].divergence for point in summarise(read_study(request_.study)).points}
    assert summary["Q8_0"] is None
    observer, points = run(replace(request_, levels=("F32", "Q8_0")))
    assert observer.asked == [("tiny F32: right answers", 6), ("tiny Q8_0: right answers", 6)]
    assert len(stored(points["Q8_0"])) == 6


def test_divergences_of_another_reference_are_not_shown(request_: RunRequest) -> None:
    """A higher level that comes later is the reference from then on: what was measured from the old one stays apart."""
    run(replace(request_, levels=("Q8_0", "Q4_0")))
    observer, points = run(request_)
    assert observer.asked == [("tiny F32: few", 6), ("tiny Q4_0: right answers", 6)]
    (per_task,) = points["Q4_0"].divergences.values()
    assert {one.reference_sha256 for one in per_task} == {points["F32"].sha256, points["Q8_0"].sha256}
    summary = {point.level: point.tasks["few"].divergence for point in summarise(read_study(request_.study)).points}
    assert summary["Q4_0"] is not None
    assert summary["Q4_0"].reference == "F32"
    assert summary["Q8_0"] is None


def test_where_the_reference_fails_without_answers_the_next_one_takes_its_place(request_: RunRequest) -> None:
    """As in the report: a file that this machine can't run is no reference."""

    def failing(job: Job, *rest: Any) -> None:
        if getattr(job, "model", "") == str(request_.models[0]):
            raise EngineError("too large")
        run_in_worker(job, *rest)

    observer = Listening()
    assert not run_study(make_plan(replace(request_, levels=("F32", "Q4_0", "Q8_0"))), observer, failing)
    assert observer.failures == ["too large"]
    assert observer.asked[1:] == [("tiny Q8_0: few", 6), ("tiny Q4_0: few", 6)]
    assert not observer.notes
    points = {point.level: point for point in summarise(read_study(request_.study)).points}
    found = points["Q4_0"].tasks["few"].divergence
    assert found is not None
    assert (found.reference, found.items) == ("Q8_0", 6)
    assert points["Q8_0"].is_reference


# The file


KEY = AnswerKey("a" * 64, {}, "task")
WANTED = {0: "first", 3: "second"}
PAIRS = [("the cat", " sat in the house"), ("the cat", " ran"), ("the", " ant"), ("a rain", " and the sand")]


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[AnswerFile]:
    with AnswerFile(tmp_path / "few.answers") as file:
        yield file


def taken(model: Model, consumer: KeptAnswers | ComparedAnswers, pairs: list[tuple[str, str]] = PAIRS) -> None:
    for done in Scorer(model, batch_size=32, threads=1).stream([Request(*pair) for pair in pairs], consumer):
        for request in done:
            if request in consumer.wanted:
                consumer.finish(request)


def test_what_is_kept_does_not_depend_on_what_is_asked_beside_it(tiny_model: Model, answers: AnswerFile) -> None:
    dtype = KEY.dtype(tiny_model.vocab_size)
    taken(tiny_model, KeptAnswers(answers, KEY, WANTED, tiny_model.vocab_size, 1))
    counts = {item: len(encode_pair(tiny_model, *PAIRS[request])[1]) for request, item in WANTED.items()}
    together = {item: answers.rows(item, dtype, count).copy() for item, count in counts.items()}
    taken(tiny_model, KeptAnswers(answers, KEY, {0: "second"}, tiny_model.vocab_size, 1), [PAIRS[3]])
    alone = answers.rows("second", dtype, counts["second"])
    for name in ("top_ids", "draw_ids"):
        assert np.array_equal(alone[name], together["second"][name])
    assert alone["top_logprobs"] == pytest.approx(together["second"]["top_logprobs"], abs=1e-4)
    assert held_items(answers.path) == {"first", "second"}


def test_a_model_beside_itself_and_answers_that_can_not_be_compared(tiny_model: Model, answers: AnswerFile) -> None:
    size = tiny_model.vocab_size
    taken(tiny_model, KeptAnswers(answers, KEY, {0: "first"}, size, 1))
    consumer = ComparedAnswers(answers, KEY, {0: "first", 1: "unknown", 2: "first"}, size, 1)
    found: dict[int, AnswerDivergence] = {}
    for done in Scorer(tiny_model, batch_size=32, threads=1).stream([Request(*pair) for pair in PAIRS], consumer):
        found |= {request: one for request in done if (one := consumer.finish(request))}
    assert found[0].kld == pytest.approx(0, abs=1e-5)
    assert found[0].same_top == found[0].tokens == len(encode_pair(tiny_model, *PAIRS[0])[1])
    assert {request: one.reason for request, one in found.items()} == {0: None, 1: NOT_KEPT, 2: OTHER_TOKENS}


def test_a_broken_row_is_never_compared(answers: AnswerFile) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (2, 700)).astype(np.float32)
    inputs, targets = np.arange(4, dtype=np.int32), np.arange(2, dtype=np.int32)
    keeper = KeptAnswers(answers, KEY, {0: "whole", 1: "broken"}, 700, 1)
    for request in (0, 1):
        assert keeper.begin(request, inputs, targets)
        count = 2 - request  # of the second request one row was not finite and is not handed over
        keeper.take([request] * count, list(range(count)), Rows(0, logits[:count], targets[:count]))
        keeper.finish(request)
    assert held_items(answers.path) == {"whole"}
    assert answers.tokens_sha256("whole") == tokens_digest(700, inputs, targets)
    candidate = ComparedAnswers(answers, KEY, {0: "whole"}, 700, 1)
    assert candidate.begin(0, inputs, targets)
    candidate.take([0], [0], Rows(0, logits[:1], targets[:1]))
    found = candidate.finish(0)
    assert found is not None
    assert (found.kld, found.reason) == (None, BROKEN)


def test_what_is_no_such_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "few.answers"
    path.write_bytes(b"no database" * 100)
    assert held_items(path) == set()
    with AnswerFile(path) as file:
        file.add("item", b"digest", np.zeros(1, reference_dtype(700, 128, 32)))
    assert held_items(path) == {"item"}
    assert held_items(tmp_path / "missing") == set()


def test_rows_that_come_one_at_a_time_are_estimated_without_bias() -> None:
    """Each row alone, the fit carried over: the mean over many draws is that of the whole sum."""
    random = np.random.default_rng(4)
    base = random.normal(0, 2.5, (24, 2000)).astype(np.float32)
    other = base + random.normal(0, 0.4, base.shape).astype(np.float32)
    targets = np.zeros(24, np.int32)
    exact = compare_exactly(Rows(0, other, targets), Rows(0, base, targets), 1).kld.astype(float).mean()
    dtype = reference_dtype(2000, 128, 32)
    estimates, variances = [], []
    for seed in range(40):
        kept = condense(Rows(0, base, targets), dtype, seed=seed, threads=1)
        fit = SlopeFit()
        parts = [
            compare_with_stored(Rows(0, other[i : i + 1], targets[:1]), kept[i : i + 1], 1, fit) for i in range(24)
        ]
        estimates.append(float(np.mean([part.kld[0] for part in parts])))
        variances.append(float(np.sum([part.kld_variance[0] for part in parts])) / 24**2)
    spread = float(np.std(estimates, ddof=1))
    assert abs(np.mean(estimates) - exact) < 3 * spread / math.sqrt(40) + 2e-3 * exact
    assert math.sqrt(np.mean(variances)) == pytest.approx(spread, rel=0.5)
