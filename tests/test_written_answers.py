"""Answers as a small model wrote them, in completions and in conversations, with what each is worth.

Every case was read by hand; where the verdict of a task was wrong, the task or its judge was mended.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gguf_eval.tasks.answers import judge_answer
from gguf_eval.tasks.catalog import find_tasks, suites, task_names
from gguf_eval.tasks.spec import Task

WRITTEN = [task for task in find_tasks(task_names()) if task.kind == "generation"]
AS_THE_HARNESS = {"gsm8k": ("Question:", "</s>", "<|im_end|>"), "bbh": ("</s>", "Q", "\n\n")}
"""Stop strings of completions that are lm-evaluation-harness's."""

VERDICTS: list[tuple[str, str, str, float]] = [
    # task, answer, reference, value
    ("arithmetic_written", "152 + 411 = 563\n\nThe answer is 563.", "563", 1),  # workings first
    ("arithmetic_written", "11 * 12 = 132", "132", 1),
    ("arithmetic_written", "255", "255", 1),
    ("arithmetic_written", " 6 * 10 + 26 = 18 + 26 = 32", "86", 0),
    ("arithmetic_written", "131 + 220 = 342\n\nThe answer is 342.", "131", 0),
    ("arithmetic_written", "18 + 12 = 20\nIvo has 20 pears now.", "20", 1),
    ("arithmetic_written", "The result of 366 - 144 is 222.", "222", 1),
    ("arithmetic_written", "366 - 144 is 222.", "222", 1),
    ("arithmetic_written", "222 is the answer.", "222", 1),
    ("arithmetic_written", "351 is the sum of 131 and 220.", "351", 1),
    ("arithmetic_written", "222\n\nCheck: 222 + 144 = 366.", "222", 1),  # nothing after a number alone counts
    ("arithmetic_written", "**222**\n\nThis is 366 without 144.", "222", 1),
    ("arithmetic_written", "A shop sells 8 bags of 23 cards, and the buyers have now 58 cards.", "58", 1),
    ("arithmetic_written", "Ivo has 33 pears, which are in 5 boxes.", "33", 0),  # a sentence more than was asked for
    ("arithmetic_written", "27 * 11 - 25 = 297 - 25 = 272. 272 =", "272", 1),  # cut by the limit of tokens
    ("strings_written", "dzodz\n\nThe answer is: dzodz", "dzodz", 1),
    ("strings_written", "zumix\n\nThis word has no vowels.", "zumix", 1),
    ("strings_written", 'The final result is "trds".', "trds", 1),
    ("strings_written", 'The last letter of "platind" is "d".', "d", 1),
    ("strings_written", "Folick in capital letters becomes FOLICK.", "FOLICK", 1),
    ("strings_written", "Here is the word in capital letters: FOLICK", "FOLICK", 1),
    ("strings_written", "The final result is:\n\nC\n\nC\n\nC", "CLIFIRT", 0),
    ("strings_written", "nimol\n\nThe word lomin is reversed.", "nimol", 1),  # what explains a result is none
    ("strings_written", "werom", "eromw", 0),
    ("strings_written", "tudus", "TUTUS", 0),
    ("letter_string_analogies", "i j l]", "i j l", 1),
    ("letter_string_analogies", "i j l", "i j l", 1),
    ("letter_string_analogies", "[i j l]", "i j l", 1),
    ("letter_string_analogies", "[a b c] [a b d]\n[i j k] [i j l]", "i j l", 1),  # the whole pattern again
    ("letter_string_analogies", "The pattern is: [i j l]", "i j l", 1),
    ("letter_string_analogies", "i j l\n\nThe last letter goes up by one.", "i j l", 1),
    ("letter_string_analogies", "[i j k]", "i j l", 0),
    ("letter_string_analogies", "", "i j l", 0),
    ("entailment_bank", " The answer is: the liver", "The liver", 1),
    ("entailment_bank", "The answer is:\n\nthe liver", "The liver", 1),
    ("entailment_bank", "compass\n\nThe answer is:", "compass", 1),  # cut by the limit of tokens
    ("entailment_bank", "compass\nIt points to the north.", "compass", 1),
    ("hotpot_qa", "\n\nYes.\n\nBoth are films.", "yes", 1),
    ("hotpot_qa", "Answer: Papa Gino's", "Papa Gino's", 1),
    ("hotpot_qa", "No, they are not American.", "no", 1),
    ("hotpot_qa", "No, Darren Shepherd and Rémi Lange are not American. They are both British.", "no", 1),
    ("hotpot_qa", "No. Both are British.", "no", 1),
    ("hotpot_qa", "No, they are not American.", "yes", 0),
    ("hotpot_qa", "No. 5", "No. 5", 1),
    ("hotpot_qa", "No Country for Old Men", "No Country for Old Men", 1),
    ("hotpot_qa", " Benny Binion\n\nWhat is the first name of his mother?\nThe answer is: Jane", "Benny Binion", 1),
    ("hotpot_qa", "The answer is: KXII\n\nThe answer is:", "KXII", 1),
    ("hotpot_qa", " Teen Titans Go!\n\nWhat is the most recent episode of Teen Titans Go!?", "Teen Titans Go!", 1),
    ("hotpot_qa", "They are not American.", "no", 0),  # the short answer is asked for
    ("flores_eng_ind", "Here is the translation:\n\nSeekor kucing tidur.\n\nIt is literal.", "Seekor kucing tidur.", 1),
    ("flores_ind_eng", "Indonesian: The festival is about freedom.", "The festival is about freedom.", 1),
    ("flores_ind_eng", "Indonesian: Kucing tidur.\nEnglish: The cat sleeps.", "The cat sleeps.", 1),
    ("flores_ind_eng", "English: The cat sleeps.\nIndonesian: Kucing tidur.", "The cat sleeps.", 1),
    ("flores_ind_eng", "**English:** The cat sleeps.", "The cat sleeps.", 1),
    ("flores_eng_ind", "\n\nSeekor kucing tidur.\n\nThe translation is literal.", "Seekor kucing tidur.", 1),
    ("flores_eng_ind", "\nEnglish: A cat.\nIndonesian: Kucing.\nEnglish: A dog.\nIndonesian: Anjing.", "Kucing.", 1),
    ("flores_eng_jav", "**Javanese translation:** Kucing turu.", "Kucing turu.", 1),
    ("samsum", "Here is a summary:\n\nBo leaves early.\n\nDialogue:\nAnn: Hi", "Bo leaves early.", 1),
    ("gsm8k_zero_shot", "She has 3 pens.\n#### 3", "1+2=<<1+2=3>>3\n#### 3", 1),
    ("gsm8k_zero_shot", "She pays $3.00 a day.\n\n#### $3.00\n\nThat is for 2 pens.", "1+2=<<1+2=3>>3\n#### 3", 1),
    ("gsm8k_zero_shot", "So the answer is 1,003.0.", "#### 1003", 1),
    ("gsm8k_zero_shot", "#### 4\n#### 5\nThe answer is 3.", "#### 3", 0),
    ("gsm8k_zero_shot", "3 pens are left.\n#### none", "#### 3", 1),
    ("gsm8k_zero_shot", "1 + 2 = 3, so she has $3.", "1+2=<<1+2=3>>3\n#### 3", 1),
    ("math_500", "We have $2 + 3 = 5$, so that $x = 5$", "5", 0),  # a box is asked for
    ("math_500", "Thus $x = 5$.\n\nThe final answer is $\\boxed{5}$.", "5", 1),
    ("math_500", "The final answer is 5.", "5", 1),
    ("math_500", "The final answer is \\(5\\).", "5", 1),
    ("math_500", "Therefore, the answer is:\n\n\\[\n\\frac{1}{2}\n\\]", "\\frac{1}{2}", 1),
    ("math_500", "**Answer:** 5", "5", 1),
    ("math_500", "The answer is **5**.", "5", 1),
    ("math_500", "So, the midpoint is $(1, 2)$, and the answer is $(-1,6).$", "(-1,6)", 1),
    ("math_500", "The answer is \\[1 + 3t.\\]", "1+3t", 1),
    ("math_500", "The answer is \\(5,\\) since five are left.", "5", 1),
    ("math_500", "The final answer is $\\boxed{16.5}$.", "16", 0),
    ("math_500", "### Final Answer\n\n5", "5", 1),
    ("math_500", "The answer is 7, since 2 + 3 = 5.", "5", 0),  # the reason is no part of the answer
    ("math_500", "The answer is 5. We check that 2 + 4 = 6.", "5", 1),
    ("math_500", "so $\\boxed{5}$.\n\nIt can be checked: $\\boxed{5", "5", 1),  # cut by the limit of tokens
    ("math_500", "\\boxed{C}", "\\text{(C)}", 1),
    ("math_500", "\\boxed{D}", "\\text{(C)}", 0),
]  # fmt: skip


def of(name: str) -> Task:
    return next(task for task in WRITTEN if task.name == name)


@pytest.mark.parametrize(("name", "answer", "reference", "value"), VERDICTS)
def test_verdicts(name: str, answer: str, reference: str, value: float) -> None:
    task = of(name)
    assert task.judge is not None
    found = judge_answer(task.judge.name, answer, [reference], task.judge.options)
    assert found.metrics[task.metric] == pytest.approx(value), found


@pytest.mark.parametrize("name", [task.name for task in WRITTEN])
def test_nothing_that_an_answer_may_hold_cuts_a_conversation(name: str) -> None:
    """Lines, blank lines and words that lead up to an answer end completions only."""
    how = of(name).generation
    assert how is not None
    stops = how.stop if how.chat_stop is None else how.chat_stop
    held = (
        "\n\nSure!\n\nQuite so.",
        "Dialogue:\nAnn",
        "[i j l]",
        "Problem: 2\n\nAnswer: 3",
        "Question: 2?\n3",
        "Q: 2?\n3",
    )
    for text in held:
        assert not any(stop in text for stop in stops), (text, stops)


@pytest.mark.parametrize("name", [task.name for task in WRITTEN if task.name not in AS_THE_HARNESS])
def test_a_completion_may_begin_its_answer_on_a_new_line(name: str) -> None:
    how = of(name).generation
    assert how is not None
    if not of(name).prompt.context[0].endswith("["):  # a prompt that ends inside brackets: the answer is on its line
        assert not any(stop in "\nJavanese:\n\nKucing turu.\nIt is literal." for stop in how.stop)


@pytest.mark.parametrize("name", AS_THE_HARNESS)
def test_completions_of_tasks_that_mirror_the_harness_end_as_there(name: str) -> None:
    how = of(name).generation
    assert how is not None
    assert how.stop == AS_THE_HARNESS[name]


def test_a_suite_asks_one_way() -> None:
    """The suite of many sizes and levels is asked without examples, its written tasks with what they want said."""
    tasks: Sequence[Task] = find_tasks(suites()["scale-and-precision"])
    assert [task.name for task in tasks if task.fewshot] == []
    asks = ("Summarise", "Give only", "Write only", "Put the final answer in \\boxed{}", "Write the final number")
    for task in tasks:
        if task.kind == "generation":
            assert any(words in task.prompt.context[0] for words in asks), task.name
