"""Judges of written answers by name: each reads the text, finds the answer in it, compares it with the references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from gguf_eval.errors import TaskError
from gguf_eval.tasks.judges import ifeval, letters, matching, mathematics, numbers, overlap, squad
from gguf_eval.tasks.judges.judgement import Judge, Judgement

__all__ = ["JUDGES", "METRICS", "Judge", "Judgement", "judge_answer", "require"]

JUDGES: dict[str, Judge] = {
    "exact_match": matching.exact_match,
    "regex": matching.regex,
    "contains": matching.contains,
    "answer_set": matching.answer_set,
    "number": numbers.number,
    "gsm8k": numbers.gsm8k,
    "choice_letter": letters.choice_letter,
    "label": letters.label,
    "squad": squad.squad,
    "hotpot": squad.hotpot,
    "rouge": overlap.rouge,
    "bleu": overlap.bleu,
    "chrf": overlap.chrf,
    "translation": overlap.translation,
    "math": mathematics.math_answer,
    "ifeval": ifeval.ifeval,
}

METRICS: Mapping[str, tuple[str, ...]] = {
    "exact_match": ("exact_match",),
    "regex": ("exact_match",),
    "contains": ("contains",),
    "answer_set": ("set_match", "set_f1"),
    "number": ("number_match",),
    "gsm8k": ("strict_match", "flexible_extract"),
    "choice_letter": ("acc",),
    "label": ("acc",),
    "squad": ("f1", "exact_match"),
    "hotpot": ("f1", "exact_match"),
    "rouge": ("rouge1", "rouge2", "rougeL"),
    "bleu": ("bleu",),
    "chrf": ("chrf++",),
    "translation": ("chrf++", "bleu"),
    "math": ("math_equal", "hendrycks_match"),
    "ifeval": ("prompt_strict", "prompt_loose"),
}
"""What each judge gives; the first is its headline."""

_OPTIONS: Mapping[str, frozenset[str]] = {
    name: frozenset(keys.split())
    for name, keys in {
        "exact_match": "ignore ignore_case ignore_punctuation ignore_numbers ignore_blanks strip",
        "regex": "pattern which ignore ignore_case ignore_punctuation ignore_numbers ignore_blanks strip",
        "contains": "ignore ignore_case ignore_punctuation ignore_numbers ignore_blanks strip",
        "answer_set": "separator ignore ignore_case ignore_punctuation ignore_numbers ignore_blanks strip",
        "number": "which mark tolerance relative_tolerance",
        "gsm8k": "headline",
        "choice_letter": "letters choices",
        "label": "labels first",
        "rouge": "stemmer",
        "math": "extract",
    }.items()
}
_NEEDED_OPTIONS = {"regex": "pattern", "label": "labels"}
_LIBRARIES = {
    "rouge": ("rouge_score",), "bleu": ("sacrebleu",), "chrf": ("sacrebleu",), "translation": ("sacrebleu",),
    "ifeval": ("langdetect",),
}  # fmt: skip


def judge_answer(name: str, answer: str, references: Sequence[Any], options: Mapping[str, Any]) -> Judgement:
    """Judge an answer by the judge of that name; texts are compared, so that references may be numbers too."""
    compared = references if name == "ifeval" else [str(reference) for reference in references]
    return JUDGES[name](answer, compared, options)


def require(name: str, options: Mapping[str, Any], source: str) -> None:
    """Check, before any answer is written, that the judge can work: its options and its libraries.

    Raises `TaskError` that names ``source``, the task file.
    """
    known = _OPTIONS.get(name, frozenset()) | {"after", "paragraph", "line", "keep"}
    for key in options:
        if key not in known:
            raise TaskError(
                f"{source}: judge.options.{key} means nothing to '{name}'; known: {', '.join(sorted(known))}"
            )
    needed = _NEEDED_OPTIONS.get(name)
    if needed is not None and needed not in options:
        raise TaskError(f"{source}: judge.options.{needed} is needed for '{name}'")
    missing = [library for library in _LIBRARIES.get(name, ()) if find_spec(library) is None]
    if missing:
        raise TaskError(
            f"{source}: the judge '{name}' needs {' and '.join(missing)}, which is not installed; "
            "pip install 'gguf-eval[text]'"
        )
