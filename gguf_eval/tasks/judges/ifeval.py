"""IFEval: whether an answer follows its instructions, strictly and loosely, by prompt and by instruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gguf_eval.errors import TaskError, nearest
from gguf_eval.tasks.judges.ifeval_checks import CHECKS
from gguf_eval.tasks.judges.judgement import Cut, Judge, Judgement, judged


def ifeval(answer: str, references: Sequence[Any], options: Cut) -> Judgement:
    """``prompt_strict`` (the value) and ``prompt_loose``: whether all instructions are followed.

    The only reference is a table of the row's ``instruction_id_list`` and ``kwargs``. ``extracted`` holds a digit for
    each instruction, strict then loose ("101 111"): what the aggregates ``instruction_strict`` and
    ``instruction_loose`` count. Loosely, the best counts of the answer with its first line, its last line, both, or
    its asterisks left out. An empty answer follows nothing.
    """
    instructions = _instructions(references)
    strict = [_followed(answer, *instruction) for instruction in instructions]
    loose = [any(_followed(text, *instruction) for text in _variants(answer)) for instruction in instructions]
    shown = " ".join("".join(str(int(flag)) for flag in flags) for flags in (strict, loose))
    return judged("prompt_strict", shown, prompt_strict=float(all(strict)), prompt_loose=float(all(loose)))


def instruction_level(extracted: Sequence[str], *, loose: bool) -> float:
    """Share of all instructions that are followed, over what `ifeval` extracted of each answer."""
    flags = "".join(shown.split()[int(loose)] for shown in extracted)
    return flags.count("1") / len(flags)


def _variants(answer: str) -> list[str]:
    lines = answer.split("\n")
    texts = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return texts + [text.replace("*", "") for text in texts]


def _followed(answer: str, name: str, settings: Mapping[str, Any]) -> bool:
    if not answer.strip():
        return False
    try:
        return CHECKS[name](answer, settings)
    except KeyError as error:
        raise TaskError(f"IFEval's {name} needs the setting {error}; found {', '.join(settings) or 'none'}") from None


def _instructions(references: Sequence[Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The instructions with their settings; settings that are null are not there."""
    if len(references) != 1 or not isinstance(references[0], Mapping):
        raise TaskError("judge 'ifeval' needs one reference: a table of instruction_id_list and kwargs")
    table = references[0]
    names, settings = table.get("instruction_id_list"), table.get("kwargs")
    if not isinstance(names, list | tuple) or not isinstance(settings, list | tuple) or len(names) != len(settings):
        raise TaskError("judge 'ifeval' needs instruction_id_list and kwargs, lists of one length")
    for name in names:
        if name not in CHECKS:
            raise TaskError(f"IFEval has no instruction '{name}'{nearest(str(name), CHECKS)}")
    given = [{key: value for key, value in (one or {}).items() if value is not None} for one in settings]
    return list(zip(names, given, strict=True))


JUDGES = (Judge("ifeval", ifeval, ("prompt_strict", "prompt_loose"), libraries=("langdetect",), compares_texts=False),)
