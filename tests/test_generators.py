"""Generated problems: solved again by other means, nested, balanced, without repeats."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gguf_eval.errors import TaskError
from gguf_eval.tasks.catalog import find_tasks
from gguf_eval.tasks.datasets import load_items, mirror
from gguf_eval.tasks.generators.catalog import GENERATORS, generated_rows
from gguf_eval.tasks.generators.letter_strings import RULES
from gguf_eval.tasks.generators.problem import Problem, rows

NOWHERE = mirror(Path("nowhere"))


def solve_deduction(text: str) -> str:
    names = {w: k for k, w in re.findall(r"Every (\w+) is a (\w+)\.", text) for w, k in [(w, k)]}
    above: dict[str, str] = dict(re.findall(r"Every (\w+) is a (\w+)\.", text))
    kind_of: dict[str, str] = dict(re.findall(r"^([A-Z]\w+) is an? (\w+)\.$", text, re.M))
    fears: dict[str, str] = {a.lower(): b for a, b in re.findall(r"(\w+) are afraid of (\w+)\.", text)}
    (asked,) = re.findall(r"What is (\w+) afraid of", text)
    kind = above.get(kind_of[asked], kind_of[asked])
    plural = {"wolf": "wolves", "mouse": "mice", "sheep": "sheep"}.get(kind, kind + "s")
    assert len(names) == len(above)
    return fears[plural]


def solve_induction(text: str) -> str:
    kind_of = dict(re.findall(r"^(\w+) is an? (\w+)\.$", text, re.M))
    colour_of: dict[str, str] = dict(re.findall(r"^(\w+) is (?!an? )(\w+)\.$", text, re.M))
    (asked,) = re.findall(r"What color is (\w+)", text)
    assert asked not in colour_of
    (colour,) = {colour for name, colour in colour_of.items() if kind_of[name] == kind_of[asked]}
    return colour


def solve_spatial(text: str) -> str:
    """Positions by relaxation: every fact gives one thing's place from another's."""
    facts = []
    for a, phrase, b in re.findall(r"^([A-Z]) is (.*?) ([A-Z])\.$", text, re.M):
        x = ("right" in phrase) - ("left" in phrase)
        y = bool(re.search("above|upper", phrase)) - bool(re.search("below|lower", phrase))
        facts.append((a, b, x, y))
    ((asked, start),) = re.findall(r"Where is ([A-Z]) from ([A-Z])", text)
    place = {start: (0, 0)}
    for _ in facts:
        for a, b, x, y in facts:
            if b in place:
                place.setdefault(a, (place[b][0] + x, place[b][1] + y))
            if a in place:
                place.setdefault(b, (place[a][0] - x, place[a][1] - y))
    x, y = place[asked]
    vertical = ("upper" if y > 0 else "lower") if y else ""
    horizontal = ("right" if x > 0 else "left") if x else ""
    if vertical and horizontal:
        return f"{vertical}-{horizontal}"
    return horizontal or ("above" if y > 0 else "below")


def solve_arithmetic(text: str) -> str:
    if not re.search("[a-z]", text):
        return str(eval(text))
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    first, second, third, fourth = numbers
    return str(first * second - third + fourth)


def solve_strings(text: str) -> str:
    def apply(words: str, word: str) -> str:
        steps = {
            "the last letter": word[-1:], "the first two": word[:2], "capital": word.upper(),
            "first letter left out": word[1:], "backwards": "".join(reversed(word)),
            "without its vowels": re.sub("[aeiou]", "", word), "alphabetical": "".join(sorted(word)),
            "moved to the end": word[1:] + word[:1],
        }  # fmt: skip
        return next(value for key, value in steps.items() if key in words)

    two = re.fullmatch(r"Write this word (.*): (\w+)\. Then write the result (.*)\. What is the final result\?", text)
    if two:
        return apply(two[3], apply(two[1], two[2]))
    start, word = text.rsplit(" ", 1)
    return apply(start, word)


SOLVERS = {
    "deduction": solve_deduction, "induction": solve_induction, "spatial": solve_spatial,
    "arithmetic": solve_arithmetic, "strings": solve_strings,
}  # fmt: skip


@pytest.mark.parametrize("name", GENERATORS)
def test_rows(name: str) -> None:
    made = generated_rows(name, [1, 2, 3], 240, "0")
    assert generated_rows(name, [1, 2, 3], 60, "0") == made[:60]
    assert generated_rows(name, [1, 2, 3], 60, "1") != made[:60]
    assert len({row["question"] for row in made}) == 240
    for difficulty in (1, 2, 3):
        of = [row for row in made if row["difficulty"] == difficulty]
        assert Counter(row["gold"] for row in of) == dict.fromkeys(range(4), 20)
    for row in made:
        assert row["choices"][row["gold"]] == row["answer"]
        assert len(set(row["choices"])) == 4


@pytest.mark.parametrize("name", SOLVERS)
def test_answers_by_another_way(name: str) -> None:
    for row in generated_rows(name, [1, 2, 3], 300, "7"):
        assert SOLVERS[name](row["question"]) == row["answer"], row


def test_no_other_analogy_can_be_defended() -> None:
    for row in generated_rows("letter_strings", [1, 2, 3], 300, "7"):
        source, target, query = (row[key].replace(" ", "") for key in ("source", "target", "query"))
        explaining = [rule for rule in RULES.values() if rule(source) == target]
        assert explaining
        answers = {" ".join(answer) for rule in explaining if (answer := rule(query)) is not None}
        assert row["answer"] in answers
        assert answers & set(row["choices"]) == {row["answer"]}


def test_no_rule_depends_on_the_difficulty_asked_beside_it() -> None:
    alone = generated_rows("arithmetic", [2], 12, "0")
    assert {row["difficulty"] for row in alone} == {2}


def test_a_generator_that_runs_dry_says_so() -> None:
    def make(draw: Any, difficulty: int) -> Problem:
        return Problem(str(draw.randrange(3)), "1", ("2", "3", "4"))

    with pytest.raises(TaskError, match="'few' found no further problem of difficulty 1 after 3; ask for fewer"):
        list(zip(range(4), rows("few", make, [1], "0"), strict=False))


def test_limit_and_seed() -> None:
    (task,) = find_tasks(["deduction"])
    small, large = (load_items(task, fetch=NOWHERE, limit=limit) for limit in (30, 200))
    assert small == large[:30]
    assert len(large) == 200
    assert len(load_items(task, fetch=NOWHERE)) == 120
    other = load_items(task, fetch=NOWHERE, limit=30, seed=1)
    assert not {item.hash for item in other} & {item.hash for item in large}
    assert {item.subject for item in small} == {"difficulty 1", "difficulty 2", "difficulty 3"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('generator = "deducton"', "did you mean 'deduction'?"),
        (
            'generator = "deduction"\ndifficulties = [4]',
            "difficulties must be a list of whole numbers from 1 to 3",
        ),
        ('generator = "deduction"\nsplit = "test"', "dataset.split means nothing to a generator"),
        ('generator = "deduction"\ncount = 0', "dataset.count must be a whole number, 1 or more"),
        ('file = "x.jsonl"\ncount = 3', "dataset.count needs dataset.generator"),
    ],
)
def test_wrong_generators(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    head = 'name = "mine"\nversion = 1\nkind = "choice"\nmetric = "acc"\n[dataset]\n'
    prompt = '\n[prompt]\ncontext = "{{ question }}"\nchoices = "choices"\ngold = "gold"\n'
    path.write_text(head + line + prompt, encoding="utf-8")
    with pytest.raises(TaskError) as caught:
        find_tasks([str(path)])
    assert message in str(caught.value)
