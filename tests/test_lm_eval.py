"""The harness's model: what it answers, what it keeps, what it refuses; and what the harness writes, as a study."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import write_rows
from tiny_model import BOS, CONTEXT_LENGTH

from gguf_eval.errors import UsageError
from gguf_eval.lm_eval.arguments import KNOWN, parse_arguments
from gguf_eval.lm_eval.caching import answer_identity, claim
from gguf_eval.lm_eval.evaluate import HarnessRequest, store
from gguf_eval.lm_eval.generation import parse_generation
from gguf_eval.lm_eval.harness import find_files
from gguf_eval.lm_eval.results import read_results
from gguf_eval.runtime.chat import ChatTemplates
from gguf_eval.runtime.model import Model
from gguf_eval.runtime.scoring import Request, Scorer
from gguf_eval.store.read import read_study
from gguf_eval.study.points import RunRequest, plan_points

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[bot]{% endif %}"
)


def test_an_unknown_argument_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown model argument 'n_ctxt'; did you mean 'n_ctx'") as error:
        parse_arguments({"path": "a.gguf", "n_ctxt": 512})
    assert all(name in str(error.value) for name in KNOWN)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "'path' is needed"),
        ({"path": "a", "pretrained": "b"}, "given twice"),
        ({"path": "a", "n_ctx": 0}, "whole number from 1 on"),
        ({"path": "a", "gpu_layers": "most"}, "whole number from 0 on"),
        ({"path": "a", "cache_type_k": "Q9"}, "needs one of F32"),
    ],
)
def test_wrong_arguments(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_arguments(given)


def test_arguments_as_the_harness_reads_them() -> None:
    arguments = parse_arguments(
        {"pretrained": "a.gguf", "max_length": 512, "gpu_layers": "all", "cache_type_k": "q8_0", "add_bos_token": False}
    )
    assert (arguments.path, arguments.n_ctx, arguments.gpu_layers) == ("a.gguf", 512, -1)
    assert arguments.answer_settings["cache_type_k"] == "Q8_0"
    assert arguments.answer_settings["add_bos_token"] is False


def test_a_cache_belongs_to_one_file_and_its_settings() -> None:
    plain, other = parse_arguments({"path": "a"}), parse_arguments({"path": "a", "n_ctx": 64})
    assert answer_identity("1", plain) == answer_identity("1", parse_arguments({"path": "b", "threads": 3}))
    identities = {answer_identity("1", plain), answer_identity("2", plain), answer_identity("1", other)}
    assert len(identities) == 3
    cache: dict[str, Any] = {}
    claim(cache, "mine")
    claim(cache, "mine")
    with pytest.raises(UsageError, match="another model"):
        claim(cache, "other")
    with pytest.raises(UsageError, match="unknown"):
        claim({"somebody's": 1}, "mine")


def test_versions_that_load_plugins_find_the_model() -> None:
    pytest.importorskip("lm_eval.api.model")
    from gguf_eval.lm_eval.model import GgufEvalLM

    (found,) = entry_points(group="lm_eval.models", name="gguf-eval")
    assert found.load() is GgufEvalLM


def test_generation_settings() -> None:
    greedy = parse_generation({"until": "\n", "do_sample": False, "temperature": 0.7, "top_k": 5}, 256)
    assert (greedy.max_tokens, greedy.stop, greedy.temperature) == (256, ("\n",), 0.0)
    sampled = parse_generation({"until": ["a", ""], "max_new_tokens": 7, "temperature": 0.5, "top_p": 0.9}, 256)
    assert (sampled.max_tokens, sampled.stop, sampled.temperature, sampled.top_p) == (7, ("a",), 0.5, 0.9)
    with pytest.raises(UsageError, match="'num_beams=4' is not supported"):
        parse_generation({"num_beams": 4}, 256)
    with pytest.raises(UsageError, match="'top_k=5' is not supported"):
        parse_generation({"do_sample": True, "top_k": 5}, 256)


def test_chat_templates(tiny_model: Model) -> None:
    chat = ChatTemplates({"tokenizer.chat_template": TEMPLATE}, tiny_model)
    template = chat.select(None)
    question = {"role": "user", "content": "Why?"}
    assert chat.render(template, [question], add_generation_prompt=True) == "[user] Why?\n[bot]"
    begun = [question, {"role": "assistant", "content": "Because"}]
    assert chat.render(template, begun, add_generation_prompt=False) == "[user] Why?\n[assistant] Because"
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE
    said = chat.render(strict, [{"role": "system", "content": "Be kind."}, question], add_generation_prompt=True)
    assert said == "[user] Why?\n[bot]"
    with pytest.raises(UsageError, match="no chat template"):
        ChatTemplates({}, tiny_model).select(None)


def sample(doc: int, filter_name: str, **more: Any) -> dict[str, Any]:
    return {"doc_id": doc, "filter": filter_name, "target": "1", "arguments": {}, **more}


def choice_sample(doc: int) -> dict[str, Any]:
    requests = {f"gen_args_{i}": {"arg_0": f"Question {doc}", "arg_1": f" {'abcd'[: i + 1]}"} for i in range(2)}
    responses = [[["-2.0", "False"]], [["-3.0", "True"]]]
    more = {"arguments": requests, "resps": responses, "filtered_resps": [r[0] for r in responses]}
    return sample(doc, "none", metrics=["acc", "acc_norm"], acc=0.0, acc_norm=1.0, **more)


def written_sample(doc: int, filter_name: str, right: float) -> dict[str, Any]:
    requests = {"gen_args_0": {"arg_0": f"Sum {doc}", "arg_1": {"until": ["\n"]}}}
    more = {"arguments": requests, "resps": [["It is 4"]], "filtered_resps": ["4"]}
    return sample(doc, filter_name, metrics=["exact_match"], exact_match=right, **more)


def document_sample(doc: int) -> dict[str, Any]:
    more = {"arguments": {"gen_args_0": {"arg_0": "A text."}}, "resps": [["-9.0"]], "filtered_resps": ["-9.0"]}
    return sample(doc, "none", metrics=["word_perplexity"], word_perplexity=[-9.0, 2], **more)


@pytest.fixture
def harness_files(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    samples = {
        "arc": [choice_sample(0), choice_sample(1)],
        "sums": [written_sample(0, "strict", 0.0), written_sample(0, "loose", 1.0)],
        "wiki": [document_sample(0)],
    }
    results = {
        "arc": {"alias": "arc", "acc,none": 0.0, "acc_norm,none": 1.0, "acc_stderr,none": 0.1},
        "sums": {"exact_match,strict": 0.0, "exact_match,loose": 1.0},
        "wiki": {"word_perplexity,none": 90.0, "word_perplexity_stderr,none": "N/A"},
    }
    configs = {name: {"task": name, "metadata": {"path": "elsewhere"}} for name in samples}
    document = {"results": results, "configs": configs, "versions": dict.fromkeys(samples, 1.0)}
    date = "2026-01-02T03-04-05.678901"
    (folder / f"results_{date}.json").write_text(json.dumps(document), encoding="utf-8")
    for name, lines in samples.items():
        path = folder / f"samples_{name}_{date}.jsonl"
        write_rows(path, lines)
    return tmp_path


def test_what_the_harness_wrote_becomes_a_study(harness_files: Path, tiny_f32: Path) -> None:
    tasks = {task.task.name: task for task in read_results(*find_files(harness_files, since=0))}
    arc = tasks["arc (lm-eval)"]
    assert arc.task.metrics == ("acc", "acc_norm")
    assert [(item.choices, item.gold) for item in arc.items] == [((" a", " ab"), 1)] * 2
    assert [(o.value, o.answer, o.logprobs) for o in arc.outcomes] == [(0.0, 0, (-2.0, -3.0))] * 2
    assert tasks["sums (lm-eval)"].outcomes[0].metrics == {"exact_match,strict": 0.0, "exact_match,loose": 1.0}
    assert tasks["sums (lm-eval)"].outcomes[0].text == "It is 4"
    assert tasks["wiki (lm-eval)"].items == ()

    study = harness_files / "s.sqlite"
    request = HarnessRequest(model=tiny_f32, study=study, command="gguf-eval lm-eval")
    point = plan_points(RunRequest(models=(tiny_f32,), study=study))[0]
    for _ in range(2):
        store(request, parse_arguments({"path": str(tiny_f32)}), point, list(tasks.values()))
    record = read_study(study)
    assert [(p.level, p.status) for p in record.points] == [("F32", "complete")]
    assert len(record.points[0].outcomes[arc.task.hash]) == 2
    assert record.points[0].harness["wiki (lm-eval)"] == {"word_perplexity,none": 90.0}


def make_requests(kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    api = pytest.importorskip("lm_eval.api.instance")
    return [api.Instance(kind, {}, given, 0, ("task", 0, 1)) for given in arguments]


def test_log_likelihoods_are_the_scorers(lm: Any, tiny_model: Model) -> None:
    pairs = [("the cat", " sat"), ("the cat", " sat in"), ("", "the cat"), ("an and ", "er")]
    answers = lm.loglikelihood(make_requests("loglikelihood", *pairs), disable_tqdm=True)
    scores = Scorer(tiny_model, threads=1).score([Request(*pair) for pair in pairs])
    assert [a[0] for a in answers] == pytest.approx([s.logprob for s in scores], abs=2e-3)
    assert [a[1] for a in answers] == [s.greedy for s in scores]


def test_a_text_that_begins_with_bos_gets_no_second_one(lm: Any) -> None:
    assert lm.tok_encode("<s>the cat") == lm.tok_encode("the cat")
    assert lm.tok_encode("the cat")[0] == BOS
    assert BOS not in lm.tok_encode("the cat", add_special_tokens=False)


def test_rolling_predicts_each_token_once(lm: Any, caplog: pytest.LogCaptureFixture) -> None:
    text = "the cat sat in an and er. " * 40
    tokens = lm.tok_encode(text)
    assert len(tokens) > lm.max_length
    (total,) = lm.loglikelihood_rolling(make_requests("loglikelihood_rolling", (text,)), disable_tqdm=True)
    parts, start = 0.0, 0
    while start < len(tokens):
        end = min(start + lm.max_length, len(tokens))
        whole = [BOS, *tokens][max(0, end - lm.max_length) : end + 1]
        count = end - start
        parts += lm._loglikelihood_tokens([(None, whole[:-count], whole[-count:])], disable_tqdm=True)[0][0]
        start = end
    assert total == pytest.approx(parts, abs=0.05)
    assert not caplog.records


def test_a_long_context_is_cut_from_the_left_with_a_warning(lm: Any, caplog: pytest.LogCaptureFixture) -> None:
    long = "the cat sat in an and er. " * 60
    (cut, _), (tail, _) = lm._loglikelihood_tokens(
        [(None, lm.tok_encode(long), [40, 41]), (None, lm.tok_encode(long)[-CONTEXT_LENGTH + 1 :], [40, 41])],
        disable_tqdm=True,
    )
    assert cut == pytest.approx(tail, abs=2e-3)
    assert "Truncating" in caplog.text
    caplog.clear()
    (written,) = lm.generate_until(
        make_requests("generate_until", (long, {"until": [], "max_gen_toks": 8})), disable_tqdm=True
    )
    assert isinstance(written, str)
    assert "Left truncation applied" in caplog.text
    with pytest.raises(UsageError, match="lower max_gen_toks"):
        lm.generate_until(make_requests("generate_until", ("a", {"max_gen_toks": CONTEXT_LENGTH})), disable_tqdm=True)


class Killed(Exception):
    """Stands for a kill in the middle of a run."""


def test_finished_requests_are_not_scored_again(lm: Any, tmp_path: Path) -> None:
    api = pytest.importorskip("lm_eval.api.model")
    requests = make_requests("loglikelihood", *((f"{n} the cat sat", " in") for n in range(60)))
    path = str(tmp_path / "cache.db")
    cached = api.CachingLM(lm, path)
    stream, kept = lm.scorer.stream, 0

    def killed_half_way(given: Any) -> Any:
        nonlocal kept
        for done in stream(given):
            kept += len(done)
            yield done
            if kept >= len(given) // 3:
                raise Killed

    lm.scorer.stream = killed_half_way
    with pytest.raises(Killed):
        cached.loglikelihood(requests)
    cached.dbdict.close()
    asked: list[int] = []

    def counted(given: Any) -> Any:
        asked.append(len(given))
        return stream(given)

    lm.scorer.stream = counted
    again = api.CachingLM(lm, path)
    answers = again.loglikelihood(requests)
    lm.scorer.stream = stream
    assert 0 < kept < len(requests)
    assert asked == [len(requests) - kept]
    fresh = lm.loglikelihood(requests, disable_tqdm=True)
    assert [a[0] for a in answers] == pytest.approx([f[0] for f in fresh], abs=2e-3)
    lm.identity, identity = "another file", lm.identity
    with pytest.raises(UsageError, match="another model file"):
        api.CachingLM(lm, path)
    lm.identity = identity
    again.dbdict.close()
    lm.set_cache_hook(SimpleNamespace(dbdict=None, add_partial=lambda *given: None))


def test_what_a_killed_process_finished_is_not_scored_again(lm: Any, tmp_path: Path, tiny_f32: Path) -> None:
    api = pytest.importorskip("lm_eval.api.model")
    cache = tmp_path / "cache.db"
    with subprocess.Popen([sys.executable, "-c", SLOW_RUN, str(tiny_f32), str(cache), str(MANY)]) as process:
        while process.poll() is None and answers_in(cache) < MANY // 4:
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
    kept = answers_in(cache)
    stream, asked = lm.scorer.stream, []

    def counted(given: Any) -> Any:
        asked.append(len(given))
        return stream(given)

    lm.scorer.stream = counted
    requests = make_requests("loglikelihood", *((f"{n} the cat sat", " in") for n in range(MANY)))
    again = api.CachingLM(lm, str(cache))
    answers = again.loglikelihood(requests)
    lm.scorer.stream = stream
    assert asked == [MANY - kept]
    assert 0 < kept < MANY
    assert len(answers) == MANY
    again.dbdict.close()
    lm.set_cache_hook(SimpleNamespace(dbdict=None, add_partial=lambda *given: None))


MANY = 120
SLOW_RUN = """
import sys, time
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from gguf_eval.lm_eval.model import GgufEvalLM

path, cache, many = sys.argv[1], sys.argv[2], int(sys.argv[3])
lm = GgufEvalLM(path=path, threads=1, batch_size=64, parallel=4)
stream = lm.scorer.stream

def slowly(given):
    for done in stream(given):
        yield done
        time.sleep(0.3)

lm.scorer.stream = slowly
pairs = [(f"{n} the cat sat", " in") for n in range(many)]
CachingLM(lm, cache).loglikelihood([Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)])
"""


def answers_in(cache: Path) -> int:
    """How many answers another process has left in the harness's cache so far."""
    if not cache.exists():
        return 0
    with contextlib.closing(sqlite3.connect(cache)) as connection:
        try:
            (rows,) = connection.execute("SELECT count(*) FROM unnamed").fetchone()
        except sqlite3.OperationalError:  # not there yet, or locked
            return 0
    return max(0, int(rows) - 1)  # one names the owner


@pytest.fixture(scope="module")
def lm(tiny_f32: Path) -> Iterator[Any]:
    pytest.importorskip("lm_eval.api.model")
    from gguf_eval.lm_eval.model import GgufEvalLM

    model = GgufEvalLM.create_from_arg_obj(
        {"path": str(tiny_f32), "threads": 1, "batch_size": 64, "parallel": 4}, {"batch_size": 1, "device": "cuda:0"}
    )
    yield model
    model.model.close()
