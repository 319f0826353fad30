"""Stored outcomes, decoded where they are looked at: a report of hundreds of thousands needs little of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from gguf_eval.store.records import Outcome
from gguf_eval.store.rows import columns, json_object

LIGHT_COLUMNS = ("value", "answer", "metrics", "truncated_tokens", "unscored_reason", "finish_reason")
"""What nearly every report reads, as it is stored; the rest is fetched with the first outcome that is looked at."""


class StoredOutcomes(Mapping[str, Outcome]):
    """The outcomes of one point on one task, by item hash in the order of the hashes."""

    def __init__(
        self,
        hashes: Sequence[str],
        light: Sequence[tuple[Any, ...]],
        fetch: Callable[[], dict[str, Outcome]],
    ) -> None:
        """Wrap rows of `LIGHT_COLUMNS`, one for each of ``hashes``; ``fetch`` reads the whole outcomes."""
        self._hashes = hashes
        columns = list(zip(*light, strict=True)) or [()] * len(LIGHT_COLUMNS)
        self.columns: dict[str, Sequence[Any]] = {
            name: _each_value_once(column) for name, column in zip(LIGHT_COLUMNS, columns, strict=True)
        }
        self._fetch = fetch
        self._whole: dict[str, Outcome] | None = None

    @property
    def scores(self) -> dict[str, float | None]:
        """The headline values, put together anew each time: kept, they would take as much as all the rest."""
        return dict(zip(self._hashes, self.columns["value"], strict=True))

    def __len__(self) -> int:
        return len(self._hashes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._hashes)

    def __getitem__(self, item_hash: str) -> Outcome:
        if self._whole is None:
            self._whole = self._fetch()
        return self._whole[item_hash]

    def read_whole(self) -> Mapping[str, Outcome]:
        """The whole outcomes, kept only where they were looked at before: those of a large study fill the memory."""
        return self._fetch() if self._whole is None else self._whole


def _each_value_once(column: Sequence[Any]) -> Sequence[Any]:
    """The same values, equal ones being one object: where items are right or wrong, few say it all."""
    known: dict[Any, Any] = {}
    return tuple(known.setdefault(value, value) for value in column)


def _column(outcomes: Mapping[str, Outcome], name: str) -> Sequence[Any]:
    """One of the `LIGHT_COLUMNS`, in the order of the hashes."""
    if isinstance(outcomes, StoredOutcomes):
        return outcomes.columns[name]
    return [columns(outcome, Outcome)[name] for outcome in outcomes.values()]


def scores(outcomes: Mapping[str, Outcome]) -> Mapping[str, float | None]:
    """The headline value of each item; None where unscored."""
    if isinstance(outcomes, StoredOutcomes):
        return outcomes.scores
    return {key: outcome.value for key, outcome in outcomes.items()}


def answers(outcomes: Mapping[str, Outcome]) -> dict[str, int | None]:
    """The choice picked on each item; None where unscored, or where there was nothing to pick from."""
    return dict(zip(outcomes, _column(outcomes, "answer"), strict=True))


def scored(outcomes: Mapping[str, Outcome], only: Collection[str] | None = None) -> dict[str, float]:
    """The headline value of each item that has one (of ``only``, where given)."""
    return {
        key: value for key, value in scores(outcomes).items() if value is not None and (only is None or key in only)
    }


def item_metrics(outcomes: Mapping[str, Outcome], only: Collection[str] | None = None) -> dict[str, dict[str, float]]:
    """Every metric of each scored item (of ``only``, where given)."""
    wanted = scored(outcomes, only)
    rows = zip(outcomes, _column(outcomes, "metrics"), strict=True)
    texts = {key: text for key, text in rows if key in wanted}
    decoded = {text: json_object(text) for text in set(texts.values())}  # few, where items are right or wrong
    return {key: decoded[text] for key, text in texts.items()}


def truncated(outcomes: Mapping[str, Outcome]) -> int:
    """Items whose prompt was cut to fit the context."""
    return len(outcomes) - list(_column(outcomes, "truncated_tokens")).count(0)


def cut_off(outcomes: Mapping[str, Outcome]) -> int:
    """Answers that a limit ended: the task's of tokens, or the context."""
    reasons = Counter(_column(outcomes, "finish_reason"))
    return reasons["length"] + reasons["context"]


def unscored_reasons(outcomes: Mapping[str, Outcome]) -> Counter[str]:
    """Why items have no score, with how many there are of each reason."""
    return Counter(filter(None, _column(outcomes, "unscored_reason")))


def read_whole(outcomes: Mapping[str, Outcome]) -> Mapping[str, Outcome]:
    """The same outcomes, to be read once and let go."""
    return outcomes.read_whole() if isinstance(outcomes, StoredOutcomes) else outcomes
