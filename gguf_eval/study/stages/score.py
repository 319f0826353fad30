"""Asks a point the choices of the items it has no outcome for, and judges what it says.

Beside it, a reference's distributions over right answers are kept, and the others of its model compared with them;
right answers that lack that are asked again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf_eval.files.cache import cache_dir
from gguf_eval.runtime.answer_file import AnswerKey, answer_path, held_items
from gguf_eval.store.database import StudyLookup
from gguf_eval.store.records import Outcome
from gguf_eval.study.cost import answer_seconds, right_characters
from gguf_eval.study.events import RIGHT_ANSWERS, StagePlan, Tally
from gguf_eval.study.job import Emit
from gguf_eval.study.stages.ask import (
    AskJob,
    TaskWork,
    ask_fields,
    plan_asked,
    store_as_they_come,
    task_work,
    unanswered,
)
from gguf_eval.study.stages.reference import ModelPoints, Reference
from gguf_eval.study.stages.state import Asked, FoundPoint, ReadyPoint, RunPoint, RunState, TaskItems
from gguf_eval.tasks.metrics import ChoiceScores, is_finite, picks, values

if TYPE_CHECKING:
    from gguf_eval.runtime.answers import ComparedAnswers, KeptAnswers
    from gguf_eval.runtime.scoring import Score, Scorer
    from gguf_eval.study.stages.asking import ChoiceRequests

    RightAnswers = KeptAnswers | ComparedAnswers

KINDS = ("choice", "continuation")
"""Of tasks that are scored."""


@dataclass(frozen=True)
class AnswersWork:
    """Where the reference's distributions over right answers lie, and what is done with them."""

    folder: str
    reference_sha256: str
    reference_settings: dict[str, Any]
    keep: bool
    """The model is the reference, whose distributions are kept; else it is compared with them."""


@dataclass(frozen=True)
class ScoreJob(AskJob):
    """Score the choices of items. Events: ``build``, ``start``, ``outcomes``, ``again``, ``right``."""

    answers: AnswersWork | None = None
    """What is done beside with the distributions over the right answers; nothing unless given."""
    again: tuple[TaskWork, ...] = ()
    """Items that are scored already, of which only the right answer is asked, for ``answers``."""


def plan(asked: Asked, point: FoundPoint, model: ModelPoints[FoundPoint], lookup: StudyLookup) -> list[StagePlan]:
    """A stage for each task, and one for the right answers that are asked again."""
    stages = plan_asked("score", KINDS, asked, point, lookup)
    reference, others = model.reference, [other.id for other in model.others]
    if point.id is None or not others:
        return stages
    units, seconds = 0, 0.0
    for work in asked.work:
        if work.task.kind in KINDS:
            kept = _kept(asked, reference, work.task.hash)
            if not reference.is_point(point):
                kept = _kept_by_then(work, reference, others, kept, lookup)
            wanted = _lacking(work, point, reference, others, kept, lookup)
            count, characters = len(wanted), right_characters(wanted.values())
            units, seconds = units + count, seconds + answer_seconds(work.task, 0, characters, point.rates)
    return [*stages, StagePlan("again", RIGHT_ANSWERS, units, 0, Tally(), seconds)] if units else stages


def run(state: RunState, point: ReadyPoint, model: ModelPoints[ReadyPoint]) -> None:
    """Score what is missing of every task of choices or continuations; outcomes are stored as they come."""
    from gguf_eval.runtime.answers import NOT_KEPT, AnswerDivergence

    missing = unanswered(state, point.id, KINDS)
    reference, others = model.reference, [other.id for other in model.others]
    keep = reference.is_point(point)
    folder = str(_folder(state.asked))
    answers = AnswersWork(folder, reference.sha256, reference.settings, keep) if others else None
    again = _without_divergence(state, point, reference, others) if answers else []
    if not missing and not again:
        return
    work_again = tuple(task_work(task_items) for task_items in again)
    job = ScoreJob(**ask_fields(state, point, missing), answers=answers, again=work_again)
    not_kept: Counter[str] = Counter()

    def on_event_too(event: dict[str, Any]) -> int:
        if event["event"] in ("outcomes", "right") and not keep and reference.id is not None:
            found = {r["item"]: AnswerDivergence(**r["divergence"]) for r in event["rows"] if r["divergence"]}
            known = {item: one for item, one in found.items() if one.reason != NOT_KEPT}
            not_kept[event["task"]] += len(found) - len(known)
            state.study.save_divergences(point.id, reference.id, event["task"], known)
        return len(event["rows"]) if event["event"] == "right" else 0

    more = sum(len(task_items.items) for task_items in again)
    store_as_they_come(state, point, "score", missing, job, outcome, more=more, on_event_too=on_event_too)
    names = {task_items.task.hash: task_items.task.name for task_items in state.asked.work}
    for task, count in not_kept.items():
        if count:
            state.observer.note(
                f"{point.planned.name}: no KL divergence from {reference.label} on {count} answers of {names[task]}: "
                f"{NOT_KEPT}"
            )


def _folder(asked: Asked) -> Path:
    """Where references leave their distributions."""
    return cache_dir(asked.request.cache) / "references"


def _kept(asked: Asked, reference: Reference, task_hash: str) -> set[str]:
    """Items that something is kept of already."""
    if not reference.sha256:
        return set()
    key = AnswerKey(reference.sha256, reference.settings, task_hash)
    return held_items(answer_path(_folder(asked), key))


def _kept_by_then(
    work: TaskItems, reference: Reference, candidates: Sequence[int | None], kept: set[str], lookup: StudyLookup
) -> set[str]:
    """Items that something is kept of when a candidate's turn comes: a reference in the run is asked before."""
    if not reference.name:
        return kept
    if reference.id is None:
        return set(work.items)
    again = _unkept(work, reference.id, candidates, kept, lookup)
    return kept | again | (work.items.keys() - lookup.answered(reference.id, work.task.hash))


def _unkept(
    work: TaskItems, reference: int, candidates: Sequence[int | None], kept: Collection[str], lookup: StudyLookup
) -> set[str]:
    """Items that the reference has a score for, nothing is ``kept`` of, and a candidate has no divergence on.

    None stands for a candidate that the study does not know yet.
    """
    task = work.task.hash
    known = [set() if one is None else lookup.divergent(one, reference, task) for one in candidates]
    wanted = {item for item in work.items if item not in kept and not all(item in one for one in known)}
    return wanted & lookup.scored(reference, task)


def _lacking(
    work: TaskItems,
    point: RunPoint,
    reference: Reference,
    candidates: Sequence[int | None],
    kept: Collection[str],
    lookup: StudyLookup,
) -> dict[str, Any]:
    """Scored items of which the right answer must be asked again, for what is lacking of them, by hash."""
    if point.id is None:
        return {}
    if reference.is_point(point):
        found = _unkept(work, point.id, candidates, kept, lookup)
    else:
        known = set() if reference.id is None else lookup.divergent(point.id, reference.id, work.task.hash)
        found = (set(kept) - known) & lookup.scored(point.id, work.task.hash)
    return {hash_: item for hash_, item in work.items.items() if hash_ in found}


def _without_divergence(
    state: RunState, point: ReadyPoint, reference: Reference, candidates: Sequence[int]
) -> list[TaskItems]:
    found = []
    for work in state.asked.work:
        if work.task.kind in KINDS:
            kept = _kept(state.asked, reference, work.task.hash)
            if left := _lacking(work, point, reference, candidates, kept, state.study):
                found.append(TaskItems(work.task, left))
    return found


def outcome(task_items: TaskItems, row: Mapping[str, Any]) -> Outcome:
    """Judge one row of a worker's ``outcomes`` event."""
    from gguf_eval.runtime.rows import NOT_FINITE

    item, task = task_items.items[row["item"]], task_items.task
    scores = ChoiceScores(
        tuple(row["logprobs"]), tuple(row["token_counts"]), tuple(len(choice) for choice in item.choices)
    )
    reason = row["unscored_reason"]
    if reason is None and not is_finite(scores):
        reason = NOT_FINITE
    if reason is not None:
        return Outcome(item.hash, None, None, {}, (), scores.token_counts, row["truncated_tokens"], reason)
    if task.kind == "continuation":
        answer, found = 0, {"acc": float(row["greedy"][0])}
    else:
        answer, found = picks(scores)[task.metric], values(scores, item.golds)
    return Outcome(
        item_hash=item.hash,
        value=found[task.metric],
        answer=answer,
        metrics={metric: found[metric] for metric in task.metrics},
        logprobs=scores.logprobs,
        token_counts=scores.token_counts,
        truncated_tokens=row["truncated_tokens"],
    )


def work(job: ScoreJob, emit: Emit) -> None:
    """The worker's side."""
    from gguf_eval.llama.library import build_info
    from gguf_eval.runtime.placement import DEFAULT_CONTEXT, open_model
    from gguf_eval.runtime.scoring import Scorer
    from gguf_eval.runtime.settings import ContextSettings
    from gguf_eval.study.stages.asking import chat_encoder, choice_requests

    wanted = ContextSettings(n_ctx=job.max_tokens or DEFAULT_CONTEXT, batch_size=job.batch_size)
    with open_model(Path(job.model), job.engine, wanted) as model:
        emit({"event": "build", **build_info()})
        scorer = Scorer(
            model, max_tokens=job.max_tokens, batch_size=job.batch_size, threads=job.threads, engine=job.engine
        )
        encoder = chat_encoder(Path(job.model), job.chat, model, "choice")
        for task in job.tasks:
            emit({"event": "start", "task": task.task_hash, "items": len(task.prompts)})
            asked, refused = choice_requests(task, job.chat, encoder)
            if refused:
                rows = [_row(task.item_hashes[place], [], reason) for place, reason in refused.items()]
                emit({"event": "outcomes", "task": task.task_hash, "rows": rows})
            with _right_answers(job, task, _right_requests(task, asked), model.vocab_size) as right:
                _score_task(task, asked, scorer, right, emit)
        if job.again:
            emit({"event": "again"})
        for task in job.again:
            asked, _ = choice_requests(task, job.chat, encoder)
            places = dict(enumerate(task.item_hashes[place] for place in asked))
            with _right_answers(job, task, places, model.vocab_size) as right:
                _ask_again(task, asked, scorer, right, emit)


@contextmanager
def _right_answers(
    job: ScoreJob, task: TaskWork, wanted: dict[int, str], vocabulary: int
) -> Iterator[RightAnswers | None]:
    """Takes the rows of the requests that are ``wanted``; None where the job has no use for them."""
    from gguf_eval.machine import physical_cores
    from gguf_eval.runtime.answer_file import AnswerFile
    from gguf_eval.runtime.answers import ComparedAnswers, KeptAnswers

    if job.answers is None:
        yield None
        return
    key = AnswerKey(job.answers.reference_sha256, job.answers.reference_settings, task.task_hash)
    kind = KeptAnswers if job.answers.keep else ComparedAnswers
    with AnswerFile(answer_path(Path(job.answers.folder), key)) as file:
        yield kind(file, key, wanted, vocabulary, job.threads or physical_cores())


def _right_requests(task: TaskWork, asked: Mapping[int, ChoiceRequests]) -> dict[int, str]:
    """The item hash of each request that is a right choice, by its number among the requests of all items."""
    found, number = {}, 0
    for place, requests in asked.items():
        found[number + task.prompts[place].right] = task.item_hashes[place]
        number += len(requests)
    return found


def _score_task(
    task: TaskWork, asked: Mapping[int, ChoiceRequests], scorer: Scorer, right: RightAnswers | None, emit: Emit
) -> None:
    owners = [place for place, requests in asked.items() for _ in requests]
    waiting: dict[int, dict[int, Score]] = {place: {} for place in asked}
    divergences: dict[int, dict[str, Any] | None] = {}
    for done in scorer.stream([request for requests in asked.values() for request in requests], right):
        rows = []
        for request, score in done.items():
            place = owners[request]
            waiting[place][request] = score
            if right is not None and request in right.wanted:
                divergences[place] = _divergence(right, request)
            if len(waiting[place]) == len(asked[place]):
                parts = waiting.pop(place)
                row = _row(task.item_hashes[place], [parts[r] for r in sorted(parts)])
                rows.append({**row, "divergence": divergences.pop(place, None)})
        if rows:
            emit({"event": "outcomes", "task": task.task_hash, "rows": rows})


def _ask_again(
    task: TaskWork, asked: Mapping[int, ChoiceRequests], scorer: Scorer, right: RightAnswers | None, emit: Emit
) -> None:
    """Only the right choice of each item, for its distributions."""
    places = list(asked)
    requests = [asked[place][task.prompts[place].right] for place in places]
    for done in scorer.stream(requests, right):
        rows = [
            {"item": task.item_hashes[places[request]], "divergence": _divergence(right, request) if right else None}
            for request in done
        ]
        emit({"event": "right", "task": task.task_hash, "rows": rows})


def _divergence(right: RightAnswers, request: int) -> dict[str, Any] | None:
    found = right.finish(request)
    return None if found is None else asdict(found)


def _row(item_hash: str, parts: Sequence[Score], refused: str | None = None) -> dict[str, Any]:
    """An item's choices as scored; none where it can't be asked, for the reason ``refused``."""
    return {
        "item": item_hash,
        "logprobs": [part.logprob for part in parts],
        "greedy": [part.greedy for part in parts],
        "token_counts": [len(part.token_logprobs) for part in parts],
        "truncated_tokens": max((part.truncated_tokens for part in parts), default=0),
        "unscored_reason": next((part.unscored_reason for part in parts if part.unscored_reason), refused),
        "divergence": None,
    }
