"""Judges beside the implementations they must agree with.

Run it in an environment that has lm-evaluation-harness (0.4.13) with its extras ifeval and math, scikit-learn and NLTK's punkt_tab data besides this package:

    PYTHONPATH=. python benchmarks/judges.py DATA [-o benchmarks/results/judges.json]

DATA is a folder of data sets in the hub's layout (texts to count sentences in, answers to compare, IFEval's rows).
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet

from gguf_eval.tasks.answers import judge_answer, judge_options
from gguf_eval.tasks.judges import mathematics, sentences, squad
from gguf_eval.tasks.judges.ifeval_checks import CHECKS
from gguf_eval.tasks.judges.judgement import Cut
from gguf_eval.tasks.judges.numbers import Headline, gsm8k


def rows(data: Path, repo: str, config: str, split: str) -> list[dict[str, Any]]:
    table = pyarrow.parquet.read_table(data / "datasets" / repo / config / split / "0000.parquet", partitioning=None)
    return list(table.to_pylist())


def answers(data: Path) -> list[str]:
    """Texts of many shapes: real ones, and real ones in the shapes that instructions ask for."""
    draw = random.Random(1)
    summaries = [row["summary"] for row in rows(data, "knkarthick/samsum", "default", "test")][:60]
    passages = [row["passage"] for row in rows(data, "google/boolq", "default", "validation")][:60]
    prompts = [row["prompt"] for row in rows(data, "google/IFEval", "default", "train")][:100]
    french = [row["fra_Latn"] for row in rows(data, "facebook/flores", "default", "devtest")][:10]
    hindi = [row["hin_Deva"] for row in rows(data, "facebook/flores", "default", "devtest")][:10]
    texts = [*summaries, *passages, *prompts, *french, *hindi]
    shaped: list[Callable[[str], str]] = [
        str.upper,
        str.lower,
        lambda t: f'"{t}"',
        lambda t: f"<<{t[:20].strip()}>>\n\n{t}",
        lambda t: t + "\n\nP.S. " + t[:30],
        lambda t: "\n\n".join(re.split(r"(?<=\.) ", t)),
        lambda t: "\n".join(f"* {part}" for part in re.split(r"(?<=\.) ", t)),
        lambda t: "\n".join(f"- {part}" for part in re.split(r"(?<=\.) ", t)),
        lambda t: "\n\n***\n\n".join(re.split(r"(?<=\.) ", t)),
        lambda t: f"{t}\n******\n{t[::2]}",
        lambda t: "```json\n" + json.dumps({"answer": t}) + "\n```",
        lambda t: "\n".join(f"SECTION {i}\n{part}" for i, part in enumerate(re.split(r"(?<=\.) ", t), 1)),
        lambda t: re.sub(r"(\w+ \w+)", r"*\1*", t, count=draw.randint(1, 5)),
        lambda t: re.sub(r"\b(\w+)\b", lambda m: m[0].upper() if draw.random() < 0.2 else m[0], t),
        lambda t: re.sub(r"(\w+)", r"[\1]", t, count=draw.randint(1, 6)),
        lambda t: t + "\nMy answer is no.",
        lambda t: t.replace(",", ""),
    ]
    return texts + ["", " ", "***", "\n\n", '"'] + [shape(draw.choice(texts)) for shape in shaped for _ in range(12)]


def settings_of(data: Path) -> dict[str, list[dict[str, Any]]]:
    """For each instruction the settings it has in the data set's rows."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in CHECKS}
    for row in rows(data, "google/IFEval", "default", "train"):
        for name, given in zip(row["instruction_id_list"], row["kwargs"], strict=True):
            found[name].append({key: value for key, value in given.items() if value is not None})
    return found


def compare_ifeval(data: Path) -> dict[str, Any]:
    import langdetect
    from lm_eval.tasks.ifeval import utils
    from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

    langdetect.DetectorFactory.seed = 0
    assert set(INSTRUCTION_DICT) == set(CHECKS)
    texts, draw = answers(data), random.Random(2)
    by_name: dict[str, list[int]] = {}
    different = []
    for name, choices in settings_of(data).items():
        same = total = followed = 0
        few = 60 if name.startswith(("language", "change_case:english")) else 400
        for text in draw.sample(texts, min(few, len(texts))):
            given, written = draw.choice(choices), text
            if name == "combination:repeat_prompt" and draw.random() < 0.3:
                written = given["prompt_to_repeat"] + " " + text
            if name == "startend:end_checker" and draw.random() < 0.3:
                written = f"{text} {given['end_phrase']}"
            example = utils.InputExample(0, [name], "", [given])
            strict = utils.test_instruction_following_strict(example, written).follow_all_instructions
            loose = utils.test_instruction_following_loose(example, written).follow_all_instructions
            table = {"instruction_id_list": [name], "kwargs": [given]}
            metrics = judge_answer("ifeval", written, [table], Cut()).metrics
            ours = (bool(metrics["prompt_strict"]), bool(metrics["prompt_loose"]))
            total += 1
            followed += bool(strict)
            if ours == (bool(strict), bool(loose)):
                same += 1
            elif len(different) < 20:
                different.append({"instruction": name, "settings": given, "text": written[:200], "ours": ours,
                                  "theirs": [bool(strict), bool(loose)]})  # fmt: skip
        by_name[name] = [same, total, followed]
    return {
        "answers": sum(total for _, total, _ in by_name.values()),
        "equal": sum(same for same, _, _ in by_name.values()),
        "equal_answers_followed_by_instruction": by_name,
        "first_differences": different,
    }


def compare_sentences(data: Path) -> dict[str, Any]:
    import nltk
    from lm_eval.tasks.ifeval import instructions_util

    texts = answers(data) + [row["dialogue"] for row in rows(data, "knkarthick/samsum", "default", "test")]
    texts += [row["answer"] for row in rows(data, "openai/gsm8k", "main", "test")]
    texts += [row["passage"] for row in rows(data, "google/boolq", "default", "validation")]
    ours = [sentences.count_sentences(text) for text in texts]
    theirs = [instructions_util.count_sentences(text) for text in texts]
    capitals = [sum(word.isupper() for word in nltk.word_tokenize(text)) for text in texts]
    wrong = [text[:300] for text, a, b in zip(texts, ours, theirs, strict=True) if a != b]
    return {
        "texts": len(texts),
        "sentence_counts_equal": sum(a == b for a, b in zip(ours, theirs, strict=True)),
        "sentences_ours": sum(ours),
        "sentences_theirs": sum(theirs),
        "sentence_counts_off_by": sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)),
        "capital_word_counts_equal": sum(
            sentences.count_capital_words(text) == count for text, count in zip(texts, capitals, strict=True)
        ),
        "first_differences": wrong[:8],
    }


def compare_math(data: Path) -> dict[str, Any]:
    from lm_eval.tasks.hendrycks_math import utils as hendrycks
    from lm_eval.tasks.minerva_math import utils as minerva

    solutions = [row["solution"] for row in rows(data, "HuggingFaceH4/MATH-500", "default", "test")]
    golds = [hendrycks.remove_boxed(hendrycks.last_boxed_only_string(text)) for text in solutions]
    forms = [
        *golds, *(f" {g} " for g in golds), *(g.replace("frac", "dfrac") for g in golds), *(f"x = {g}" for g in golds),
        *(re.sub(r"\\frac\{(\d)\}\{(\d)\}", r"\\frac\1\2", g) for g in golds), *(f"\\text{{{g}}}" for g in golds),
        *(g.replace("{", "").replace("}", "") for g in golds), *(f"{g} cm" for g in golds), *(f"${g}$." for g in golds),
    ]  # fmt: skip

    def theirs(text: str) -> str | None:
        try:
            return str(hendrycks.strip_string(text))
        except Exception:
            return None

    def ours(text: str) -> str | None:
        try:
            return mathematics.hendrycks_form(text)
        except ValueError:
            return None

    spread = [f"The result is {g}." for g in golds] + [f"So $x$ is $ {g} $" for g in golds] + solutions
    dollars = judge_options("math", {"extract": "dollars"})
    verdicts = [
        bool(hendrycks.process_results({"solution": s}, [t])["exact_match"])
        == bool(judge_answer("math", t, [s], dollars).metrics["hendrycks_match"])
        for t, s in zip(spread, itertools.cycle(solutions), strict=False)
    ]
    return {
        "boxes": [sum(mathematics.last_boxed(s) == g for s, g in zip(solutions, golds, strict=True)), len(golds)],
        "hendrycks_forms_equal": [sum(ours(form) == theirs(form) for form in forms), len(forms)],
        "minerva_forms_equal": [
            sum(mathematics.minerva_form(form) == minerva.normalize_final_answer(form) for form in forms), len(forms)
        ],
        "hendrycks_verdicts_equal": [sum(verdicts), len(verdicts)],
        "golds_equal_themselves": [
            sum(judge_answer("math", s, [g], judge_options("math", {})).value == 1 for s, g in zip(solutions, golds, strict=True)), len(golds)
        ],
    }  # fmt: skip


def compare_gsm8k(data: Path) -> dict[str, Any]:
    import lm_eval.tasks
    import yaml
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    path = Path(lm_eval.tasks.__file__).parent / "gsm8k" / "gsm8k.yaml"
    config = yaml.safe_load(path.read_text())
    metric = {
        k: v
        for k, v in config["metric_list"][0].items()
        if k in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")
    }
    filters = {}
    for entry in config["filter_list"]:
        setting = {k: v for k, v in entry["filter"][0].items() if k != "function"}
        filters[entry["name"].replace("-", "_")] = RegexFilter(**setting)
    draw = random.Random(3)
    truth = [row["answer"] for row in rows(data, "openai/gsm8k", "main", "test")]
    written = []
    for text in truth:
        number = text.split("#### ")[-1]
        other = draw.choice(truth).split("#### ")[-1]
        written += [text, text.replace("####", "The answer is"), f"${number}.", f"#### {other}", f"#### ${number}",
                    f"{number}.00", f"first #### {number}\nthen #### {other}", "no idea", f"-{number} or 1,000,{number}"]  # fmt: skip
    equal = total = 0
    for text, reference in zip(written, [t for t in truth for _ in range(9)], strict=True):
        found = gsm8k(text, [reference], Headline()).metrics
        for name, regex in filters.items():
            [[extracted]] = regex.apply([[text]], [{}])
            wanted = exact_match_hf_evaluate([extracted], [reference], **metric)["exact_match"]
            equal += float(wanted) == found[name]
            total += 1
    return {"equal": equal, "judgements": total}


def official_squad() -> Iterator[tuple[str, str]]:
    draw = random.Random(4)
    words = ["the", "a", "an", "cat", "Cat,", "'dog'", "12", "12.", "U.S.", "yes", "no", "Paris", "in", "of", "é"]
    for _ in range(2000):
        yield tuple(" ".join(draw.choices(words, k=draw.randint(0, 6))) for _ in range(2))  # type: ignore[misc]


def compare_squad() -> dict[str, Any]:
    from lm_eval.tasks.mlqa import utils as mlqa  # its copy of the official script; a language's articles are a setting

    pairs = list(official_squad())
    f1 = [
        abs(squad.token_f1(a, b) - mlqa.f1_score(a, b, "en")) < 1e-12
        for a, b in pairs
        if squad.plain(a) or squad.plain(b)
    ]
    exact = [float(squad.plain(a) == squad.plain(b)) == mlqa.exact_match_score(a, b, "en") for a, b in pairs]
    return {"pairs": len(pairs), "f1_equal": [sum(f1), len(f1)], "exact_match_equal": sum(exact)}


def compare_macro_f1() -> dict[str, Any]:
    from sklearn.metrics import f1_score

    from gguf_eval.tasks.aggregates import Answered, macro_f1

    draw, equal = random.Random(5), 0
    for _ in range(200):
        gold = draw.choices(["negative", "neutral", "positive"], k=30)
        found = draw.choices(["negative", "neutral", "positive"], k=30)
        ours = macro_f1([Answered(extracted=f, references=(g,)) for f, g in zip(found, gold, strict=True)])
        equal += abs(ours - f1_score(gold, found, average="macro")) < 1e-12
    return {"samples": 200, "equal": equal}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "command": "python benchmarks/judges.py DATA",
        "versions": {"lm_eval": version("lm_eval")},
        "gsm8k against lm-evaluation-harness's filters": compare_gsm8k(arguments.data),
        "MATH against lm-evaluation-harness's normalisations": compare_math(arguments.data),
        "SQuAD against the copy of the official script in lm-evaluation-harness": compare_squad(),
        "macro-F1 against scikit-learn": compare_macro_f1(),
        "sentences and capitals against NLTK": compare_sentences(arguments.data),
        "IFEval against lm-evaluation-harness's checks": compare_ifeval(arguments.data),
    }
    print(json.dumps(result, indent=2, ensure_ascii=False))
    for part in result.values():
        if isinstance(part, dict):
            part.pop("first_differences", None)  # texts of other people's data sets: shown, not kept
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
