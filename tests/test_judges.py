"""Judges of written answers: cases spelt out, and properties that hold for any text."""

from __future__ import annotations

import json
import math
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gguf_eval.decoding import DecodingError
from gguf_eval.errors import TaskError
from gguf_eval.tasks import judges
from gguf_eval.tasks.aggregates import AGGREGATES, Answered
from gguf_eval.tasks.answers import JUDGES, Judgement, judge_answer, judge_options
from gguf_eval.tasks.judges import ifeval_checks, mathematics, numbers, sentences, squad
from gguf_eval.tasks.judges.letters import extract_letter
from gguf_eval.tasks.spec import load_task


def judge(name: str, answer: str, *references: Any, **options: Any) -> Judgement:
    return judge_answer(name, answer, references, judge_options(name, options))


OPTIONS = {"regex": {"pattern": r"\d+"}, "label": {"labels": ["yes", "no"]}}


@settings(max_examples=60)
@given(name=st.sampled_from(sorted(set(JUDGES) - {"ifeval"})), answer=st.text(), reference=st.text(min_size=1))
def test_any_text_can_be_judged(name: str, answer: str, reference: str) -> None:
    found = judge(name, answer, reference, **OPTIONS.get(name, {}))
    if found.value is None:
        assert found.unscored_reason
        assert found.metrics == {}
    else:
        metrics = JUDGES[name].metrics
        assert set(found.metrics) == set(metrics)
        assert found.value == found.metrics[metrics[0 if name != "rouge" else 2]]
        assert all(0 <= value <= 1 + 1e-9 for value in found.metrics.values())


def test_a_judge_is_a_module_that_lists_it_and_no_two_have_one_name() -> None:
    modules = [import_module(f"{judges.__name__}.{module.name}") for module in iter_modules(judges.__path__)]
    names = [judge.name for module in modules for judge in getattr(module, "JUDGES", ())]
    assert sorted(names) == sorted(JUDGES)
    assert len(names) > 15


@pytest.mark.parametrize(
    ("answer", "options", "right"),
    [
        ("Paris", {}, True),
        (" Paris \n", {}, True),
        (" Paris", {"strip": False}, False),
        ("paris", {}, False),
        ("PARIS!", {"ignore_case": True, "ignore_punctuation": True}, True),
        ("The answer is:\nParis\nI think", {"line": "last"}, False),
        ("Paris\nI think", {"line": "first"}, True),
        ("\n\nThe city is:\nParis\nI think", {"line": "first"}, True),
        ("Paris:", {"line": "first", "ignore_punctuation": True}, True),
        ("\n\nHere it is:\n \nParis\n\nI think so.", {"paragraph": "first"}, True),
        ("Paris\nis it\n\nI think so.", {"paragraph": "first"}, False),
        ("I think\n\nthe city:\nParis\n", {"paragraph": "last", "line": "last"}, True),
        ("So, the answer is Paris. No: the answer is Paris", {"after": "the answer is"}, True),
        ("Paris 3", {"ignore_numbers": True}, True),
        ("<b>Paris</b>", {"ignore": ["<.*?>"]}, True),
        ("", {}, False),
    ],
)
def test_exact_match(answer: str, options: dict[str, Any], right: bool) -> None:
    assert judge("exact_match", answer, "London", "Paris", **options).value == right


def test_regex() -> None:
    pattern = r"the answer is (?:\((\w)\)|(\w))"
    assert judge("regex", "the answer is (B), the answer is C", "B", pattern=pattern).value == 1
    assert judge("regex", "the answer is (B), the answer is C", "C", pattern=pattern, which=-1).value == 1
    none = judge("regex", "B", "B", pattern=pattern)
    assert (none.value, none.extracted, none.unscored_reason) == (0, None, None)
    with pytest.raises(DecodingError, match=r"judge.options.pattern: '\(' is not a regular expression: missing \)"):
        judge("regex", "x", "x", pattern="(")
    with pytest.raises(DecodingError, match=r"judge.options.ignore: '\[' is not a regular expression"):
        judge("regex", "x", "x", pattern="x", ignore=["a", "["])
    with pytest.raises(DecodingError, match="judge.options.pattern must be a regular expression; found 5"):
        judge("regex", "x", "x", pattern=5)


def test_sets_of_answers() -> None:
    assert judge("answer_set", "b, a; b", "a", "b").metrics == {"set_match": 1, "set_f1": 1}
    assert judge("answer_set", "a, c", "a", "b").metrics == {"set_match": 0, "set_f1": 0.5}
    assert judge("contains", "It is the cat.", "cat").value == 1
    assert judge("contains", "Concatenate", "cat").value == 0


@pytest.mark.parametrize(
    ("answer", "strict", "flexible"),
    [
        ("3 + 4 = 7\n#### 1,007", 1, 1),
        ("#### 1007.", 1, 1),
        ("#### $1007", 0, 1),  # the harness's strict pattern knows no dollar
        ("it is 1007 dollars", 0, 1),
        ("it is $1,007.", 0, 1),
        ("#### 1007 or 8", 1, 0),
        ("#### 8 then #### 1007", 0, 1),
        ("none", 0, 0),
        ("1007.00", 0, 0),
    ],
)
def test_gsm8k(answer: str, strict: int, flexible: int) -> None:
    metrics = judge("gsm8k", answer, "He adds <<1000+7=1007>> so\n#### 1,007").metrics
    assert metrics == {"strict_match": strict, "flexible_extract": flexible}
    assert judge("gsm8k", answer, "#### 1007", headline="flexible_extract").value == flexible


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,234.5 and -3", [1234.5, -3]),
        ("10-3=7", [10, 3, 7]),
        ("x=-2e3", [-2000]),
        ("3/4 of 8", [0.75, 8]),
        ("1/0", []),
        (".5", [0.5]),
        ("1,2", [1, 2]),
        ("−7 °C", [-7]),
        ("no. none", []),
        ("see line2: 5", [2, 5]),
        ("type1, E5", [1, 5]),
        ("1e400", []),
    ],
)
def test_numbers(text: str, found: list[float]) -> None:
    assert numbers.numbers_in(text) == found


@given(st.integers(-(10**9), 10**9))
def test_numbers_are_read_in_every_form(value: int) -> None:
    for text in (f"so {value}.", f"{value:,} units", f"= {value}.0"):
        assert numbers.numbers_in(text)[-1] == value


@given(st.text("0123456789eE+-−.,/ \n²٣x"))
def test_numbers_are_looked_for_in_anything(text: str) -> None:
    assert all(math.isfinite(value) for value in numbers.numbers_in(text))


def test_tolerance() -> None:
    assert judge("number", "about 3.14", "3.14159").value == 0
    assert judge("number", "about 3.14", "3.14159", tolerance=0.01).value == 1
    assert judge("number", "99", "100", relative_tolerance=0.01).value == 1
    assert judge("number", "5 of 8", "5", which="first").value == 1
    assert judge("number", "none", "5").value == 0


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("b", "B"), ("(B)", "B"), ("**B.**", "B"), ("B)\n", "B"), ("B. It is wet", "B"),
        ("(C) because", "C"), ("The answer is (D).", "D"), ("I first thought the answer is A. The answer is B.", "B"),
        ("Answer: C", "C"), ("The correct option is D, since", "D"), ("The answer is a cat", None),
        ("A cat sat", None), ("A or B", None), ("I do not know", None), ("", None), ("red", "A"),
        ("It must be blue!", "B"),
        ("red or blue", None), ("Both (A) and (B)", None), ("It is (B), surely", "B"), ("E", None),
    ],
)  # fmt: skip
def test_choice_letters(answer: str, letter: str | None) -> None:
    assert extract_letter(answer, "ABCD", ["red", "blue", "green", "black"]) == letter


def test_a_letter_that_is_not_there_is_unscored() -> None:
    found = judge("choice_letter", "Who knows?", "B")
    assert (found.value, found.metrics) == (None, {})
    assert found.unscored_reason == "the answer names no choice, or several"
    assert judge("choice_letter", "(B)", "(B)").value == 1
    assert judge("choice_letter", "A", "B").value == 0


def test_labels_and_macro_f1() -> None:
    options = {"labels": ["positive", "negative", "neutral"]}
    assert judge("label", "It is Positive.", "positive", **options).value == 1
    assert judge("label", "positive or negative", "positive", **options).value is None
    assert judge("label", "positive, not negative", "positive", **options, first=True).value == 1
    assert judge("label", "nonpositive", "positive", **options).unscored_reason
    answers = [Answered(extracted=a, references=(b,)) for a, b in ("xx", "xy", "yy", "yx", "zx")]
    # x: 1 both of 2 + 3; y: 1 both of 2 + 2; z: none
    assert AGGREGATES["macro_f1"](answers) == pytest.approx((2 / 5 + 2 / 4 + 0) / 3)


def test_squad() -> None:
    assert squad.plain("The  U.S., an Ant!") == "us ant"
    assert judge("squad", "the big cat", "a cat", "dog").metrics == {"f1": pytest.approx(2 / 3), "exact_match": 0}
    assert judge("squad", "The cat.", "cat").metrics == {"f1": 1, "exact_match": 1}
    assert judge("squad", "the", "an").metrics == {"f1": 1, "exact_match": 1}  # nothing is left of either
    assert judge("squad", "", "cat").value == 0
    assert judge("squad", "yes it is", "yes").value == 0.5
    assert judge("hotpot", "yes it is", "yes").value == 0
    assert judge("hotpot", "Yes.", "yes").value == 1


@given(st.text(), st.text())
def test_token_f1_is_symmetric(first: str, second: str) -> None:
    assert squad.token_f1(first, second) == pytest.approx(squad.token_f1(second, first))
    assert squad.token_f1(first, first) == 1


def test_rouge() -> None:
    found = judge("rouge", "the cats sat", "the cat sat down").metrics
    assert found == pytest.approx({"rouge1": 6 / 7, "rouge2": 4 / 5, "rougeL": 6 / 7})
    assert judge("rouge", "the cats sat", "the cat sat down", stemmer=False).metrics["rouge2"] == 0
    assert judge("rouge", "ein Satz", "это").value is None
    assert judge("rouge", "", "a").value == 0


def test_translations() -> None:
    from sacrebleu import corpus_bleu, corpus_chrf, sentence_bleu, sentence_chrf

    hypotheses, references = (
        ["The cat sat on the mat.", "A dog barked there"],
        [["A cat sat on the mat."], ["The dog barked"]],
    )
    found = [judge("translation", text + "\n", *wanted) for text, wanted in zip(hypotheses, references, strict=True)]
    for one, text, wanted in zip(found, hypotheses, references, strict=True):
        assert one.metrics["bleu"] == pytest.approx(sentence_bleu(text, wanted).score / 100)
        assert one.metrics["chrf++"] == pytest.approx(sentence_chrf(text, wanted, word_order=2).score / 100)
        assert one.extracted == text
    answers = [
        Answered(extracted=one.extracted, references=tuple(row)) for one, row in zip(found, references, strict=True)
    ]
    columns = [[row[0] for row in references]]
    assert AGGREGATES["corpus_bleu"](answers) == pytest.approx(corpus_bleu(hypotheses, columns).score / 100)
    assert AGGREGATES["corpus_chrf++"](answers) == pytest.approx(
        corpus_chrf(hypotheses, columns, word_order=2).score / 100
    )


@pytest.mark.parametrize(
    ("answer", "gold", "hendrycks", "equal"),
    [
        (r"so $\boxed{\frac{1}{2}}$", r"\frac12", 1, 1),
        (r"\boxed{0.5}", r"\frac{1}{2}", 1, 1),
        (r"\boxed{\dfrac{3}{4}}", "3/4", 1, 1),
        (r"\boxed{0.75}", r"\frac{3}{4}", 0, 1),
        (r"\boxed{12\text{ cm}}", "12", 1, 1),
        (r"\boxed{12 cm}", "12", 0, 1),
        (r"\boxed{1,000}", "1000", 0, 1),
        (r"\boxed{x = 5}", "5", 1, 1),
        (r"first \boxed{3}, no: \boxed{{a}_{4}}", "{a}_{4}", 1, 1),
        (r"\boxed 7$", "7", 1, 1),
        ("The final answer is $\\sqrt3$. I hope it is correct.", r"\sqrt{3}", 1, 1),
        ("Answer: 17.", "17", 1, 1),
        ("17", "17", 1, 1),
        (r"\boxed{(1,2)}", "(1, 2)", 1, 1),
        (r"\boxed{90^\circ}", "90", 1, 1),
        (r"\boxed{50\%}", "50", 1, 1),
        (r"\boxed{4}", "5", 0, 0),
        (r"\boxed{", "5", 0, 0),
        ("", "5", 0, 0),
        (r"\boxed{\frac}", "5", 0, 0),
        # no box, and no word of an answer: what stands in running text is no answer, wherever it stands
        ("First $x = 3$, then $y = 5$.", "5", 0, 0),
        ("We add them: $2 + 3 = 5$\nand go on with $7$", "5", 0, 0),
        ("So there are 2 + 3 = 5", "5", 0, 0),
        ("The answer is $5$, since $2 + 5 = 7$.", "5", 1, 1),
        ("$5$.", "5", 1, 1),
        ("x = 5", "5", 1, 1),
        ("5 cm", "5", 0, 1),
    ],
)
def test_mathematics(answer: str, gold: str, hendrycks: int, equal: int) -> None:
    assert judge("math", answer, gold).metrics == {"math_equal": equal, "hendrycks_match": hendrycks}
    assert judge("math", answer, rf"Thus \boxed{{{gold}}}.").value == equal


@given(st.text(alphabet="\\{}frac sqrt$12/=.,box", max_size=30))
def test_any_formula_has_its_own_form(text: str) -> None:
    mathematics.final_answer(text)
    mathematics.minerva_form(text)
    assert mathematics.hendrycks_equal(text, text)


# IFEval

FOLLOWED: list[tuple[str, dict[str, Any], str, str]] = [
    # instruction, settings, an answer that follows it, one that does not
    ("keywords:existence", {"keywords": ["cat", "dog"]}, "A Dog, a cat.", "A cat."),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "at least"}, "cat Cat", "cat"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "concatenate", "a Cat"),
    ("keywords:letter_frequency", {"letter": "a", "let_frequency": 2, "let_relation": "less than"}, "A b", "aA"),
    ("language:response_language", {"language": "de"}, "Das ist ein ganz einfacher Satz.", "This is a sentence."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, "One.", "One. Two."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "It's me", "It is"),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
     "One.\n\n\"then, two", "Then.\n\nOne"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], [place]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Hi\n\nP. S. Bye", "Hi PS"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n** b"),
    ("detectable_format:constrained_response", {}, "My answer is no.", "No."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a* and * *"),
    ("detectable_format:multiple_sections", {"section_spliter": "SECTION", "num_sections": 2},
     "SECTION 1\na\nSECTION 2\nb", "Section 1 a Section 2 b"),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<A poem>>\nx", "<< >>\nx"),
    ("combination:two_responses", {}, "a\n******\nb", "a******a"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, "say hi. Hi!", "Hi! Say hi."),
    ("startend:end_checker", {"end_phrase": "The end."}, 'So. "THE END."', "The end. Not."),
    ("startend:quotation", {}, ' "a" ', '"a'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "I DO", "I do"),
    ("change_case:english_capital", {}, "THIS IS A PLAIN ENGLISH SENTENCE.", "This is a plain English sentence."),
    ("change_case:english_lowercase", {}, "this is a plain english sentence.", "dies ist ein ganz einfacher satz."),
    ("punctuation:no_comma", {}, "a b", "a, b"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given_settings", "good", "bad"), FOLLOWED)
def test_instructions(name: str, given_settings: dict[str, Any], good: str, bad: str) -> None:
    padded = given_settings | {"unused": None}
    for answer, followed in ((good, 1), (bad, 0), ("", 0)):
        table = {"instruction_id_list": [name], "kwargs": [padded]}
        assert judge("ifeval", answer, table).value == followed, answer


def test_every_instruction_is_tested() -> None:
    assert {name for name, *_ in FOLLOWED} == set(ifeval_checks.CHECKS)
    assert len(ifeval_checks.CHECKS) == 25


def test_strict_and_loose_by_prompt_and_by_instruction() -> None:
    table = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {}]}
    found = judge("ifeval", 'Sure, here it is:\n"All well"', table)
    assert found.metrics == {"prompt_strict": 0, "prompt_loose": 1}
    assert found.extracted == "00 11"
    other = judge("ifeval", "a, b", table)
    answers = [Answered(extracted=one.extracted) for one in (found, other)]
    assert AGGREGATES["instruction_strict"](answers) == 0
    assert AGGREGATES["instruction_loose"](answers) == 0.5


def test_wrong_references_of_ifeval() -> None:
    for table, message in (
        ("text", "needs one reference: a table"),
        ({"instruction_id_list": ["x"], "kwargs": []}, "lists of one length"),
        ({"instruction_id_list": ["startend:quotatio"], "kwargs": [{}]}, "did you mean 'startend:quotation'?"),
        ({"instruction_id_list": ["keywords:existence"], "kwargs": [{}]}, "needs the setting 'keywords'; found none"),
    ):
        with pytest.raises(TaskError, match=message):
            judge("ifeval", "x", table)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0), ("One", 1), ("One. Two", 2), ("What?! No.", 2), ("Mr. Smith left. He ran.", 2), ("1. Foo. 2. Bar.", 4),
        ("Wait... what? ok... then go.", 2), ("He said (yes.) Then left.", 2), ('"No." Then left.', 2),
        ("It cost 3.50 dollars. Cheap!", 2), ("See e.g. the U.S. army today.", 2), ("Line one\nLine two", 1),
    ],
)  # fmt: skip
def test_sentences(text: str, count: int) -> None:
    assert sentences.count_sentences(text) == count


def test_capital_words() -> None:
    assert sentences.count_capital_words("I'm sure I'll go") == 2
    assert sentences.count_capital_words("I saw NASA, DON'T panic; CANNOT (A-OK) **BOLD** Mr. U.S.") == 9


@given(st.text())
def test_counts_are_counts(text: str) -> None:
    assert 0 <= sentences.count_sentences(text) <= len(text)
    assert 0 <= sentences.count_capital_words(text) <= len(text)


# What task files may say

FILE = """
name = "mine"
version = 1
kind = "generation"
metric = "{metric}"
[dataset]
file = "mine.jsonl"
[prompt]
context = "{{{{ q }}}}"
references = "a"
[judge]
name = "{judge}"
options = {options}
"""


@pytest.mark.parametrize(
    ("name", "metric", "options", "message"),
    [
        ("number", "acc", "{}", "metric 'acc' is unknown"),
        ("numbr", "acc", "{}", "did you mean 'number'?"),
        (
            "number",
            "number_match",
            "{ tolerence = 1 }",
            "unknown key 'judge.options.tolerence'; did you mean 'tolerance'?",
        ),
        (
            "number",
            "number_match",
            "{ which = 'frist' }",
            "judge.options.which 'frist' is unknown; did you mean 'first'?",
        ),
        ("number", "number_match", "3", "judge.options must be a table; found 3"),
        ("regex", "exact_match", "{}", "judge.options.pattern is needed: a regular expression"),
    ],
)
def test_wrong_judges_of_task_files(tmp_path: Path, name: str, metric: str, options: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(FILE.format(judge=name, metric=metric, options=options), encoding="utf-8")
    with pytest.raises(TaskError) as caught:
        load_task(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_library_that_is_not_there_is_named_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gguf_eval.tasks.answers.find_spec", lambda name: None)
    path = tmp_path / "mine.toml"
    for name in ("rouge", "translation", "ifeval"):
        path.write_text(FILE.format(judge=name, metric=JUDGES[name].metrics[0], options="{}"), encoding="utf-8")
        with pytest.raises(
            TaskError, match=r"mine.toml: the judge '\w+' needs \w+, .* pip install 'gguf-eval\[text\]'"
        ):
            load_task(path)
    judge_options("number", {"tolerance": 1})


@pytest.mark.shared_data
def test_the_rows_of_ifeval_are_understood(shared_data: Path) -> None:
    import pyarrow.parquet

    split = shared_data / "hub" / "datasets" / "google" / "IFEval" / "default" / "train"
    for row in pyarrow.parquet.read_table(split, partitioning=None).to_pylist():
        table = json.loads(json.dumps({key: row[key] for key in ("instruction_id_list", "kwargs")}))
        names = [name for name in row["instruction_id_list"] if name not in ifeval_checks.LANGUAGE_CHECKS]
        if len(names) == len(row["instruction_id_list"]):
            assert judge("ifeval", row["prompt"], table).value in (0, 1)
