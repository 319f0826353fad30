"""The hub room against a real HTTP server, with the real client."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import LARGE_FILE_BYTES, TOKEN, HubServer

from gguf_eval.errors import GgufEvalError, ModelFileError, TaskError
from gguf_eval.files import hub_datasets, hub_models

DATASET, MODEL = "someone/questions", "someone/tiny"
LARGE = bytes(range(256)) * (4 * LARGE_FILE_BYTES // 256)


def _write(path: Path, data: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    rows = tmp_path / "files" / "datasets" / DATASET
    _write(rows / "default" / "validation" / "0000.parquet", b"first")
    _write(rows / "default" / "validation" / "0001.parquet", LARGE)
    _write(rows / "default" / "test" / "0000.parquet", b"other split")
    _write(rows / "extra" / "validation" / "0000.parquet", b"other config")
    model = tmp_path / "files" / "models" / MODEL
    _write(model / "config.json", b"{}")
    _write(model / "model.safetensors", LARGE)
    _write(model / "consolidated.safetensors", LARGE)
    _write(model / "pytorch_model.bin", LARGE)
    _write(model / "original" / "tokenizer.model")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "cache" / "token"))
    with HubServer(tmp_path / "files") as running:
        for name, value in running.environment(tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        yield running


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _fails(kind: type[GgufEvalError], *words: str, repo: str = DATASET, split: str = "validation") -> None:
    with pytest.raises(kind) as caught:
        hub_datasets.dataset_files(repo, "default", split)
    message = str(caught.value)
    assert "\n" not in message
    for word in (repo, *words):
        assert word in message


def test_only_the_files_of_the_split_come_down_in_order(server: HubServer) -> None:
    files = hub_datasets.dataset_files(DATASET, "default", "validation")
    assert [path.name for path in files] == ["0000.parquet", "0001.parquet"]
    assert [path.read_bytes() for path in files] == [b"first", LARGE]
    assert not any("default/test" in path or "extra" in path for _, path, _ in server.requests)


def test_a_second_call_downloads_nothing(server: HubServer) -> None:
    first = hub_datasets.dataset_files(DATASET, "default", "validation")
    server.requests.clear()
    assert hub_datasets.dataset_files(DATASET, "default", "validation") == first
    assert not [path for method, path, _ in server.requests if method == "GET" and "/api/" not in path]


def test_a_listing_in_several_pages(server: HubServer) -> None:
    server.page_size = 1
    assert len(hub_datasets.dataset_files(DATASET, "default", "validation")) == 2


def test_offline_uses_the_cache_and_says_so_when_it_lacks_files(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = hub_datasets.dataset_files(DATASET, "default", "validation")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    server.requests.clear()
    assert hub_datasets.dataset_files(DATASET, "default", "validation") == online
    _fails(TaskError, "HF_HUB_OFFLINE", split="test")
    _fails(TaskError, "HF_HUB_OFFLINE", repo="someone/other")
    assert not server.requests


def test_a_dropped_connection_is_resumed(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    server.drop_after["0001.parquet"] = [5000, 3000]
    files = hub_datasets.dataset_files(DATASET, "default", "validation")
    assert files[1].read_bytes() == LARGE
    ranges = [asked for method, path, asked in server.requests if method == "GET" and "/store/" in path]
    assert ranges == [None, "bytes=5000-", "bytes=8000-"]


def test_a_connection_that_always_drops_is_one_line_and_resumed_later(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.drop_after["0001.parquet"] = [5000] + [0] * 40
    _fails(TaskError, "run again")
    server.drop_after.clear()
    assert hub_datasets.dataset_files(DATASET, "default", "validation")[1].read_bytes() == LARGE


def test_what_is_missing_is_named(server: HubServer) -> None:
    _fails(TaskError, "no such repository", "hf auth login", repo="someone/nothing")
    _fails(TaskError, "default/test, default/validation", "did you mean 'default/validation'?", split="validaton")
    with pytest.raises(TaskError, match="no such revision"):
        hub_datasets.dataset_files(DATASET, "default", "validation", revision="v9")
    with pytest.raises(TaskError, match="owner/name"):
        hub_datasets.dataset_files("not a name!", "default", "validation")
    with pytest.raises(ModelFileError, match="no such revision"):
        hub_models.checkpoint_folder(MODEL, revision="v9")


def test_a_data_set_that_is_on_no_hub_is_not_asked_for(server: HubServer) -> None:
    """Whoever takes the name on a hub could answer."""
    for ask in (hub_datasets.dataset_files, hub_datasets.split_to_fetch):
        with pytest.raises(TaskError, match=r"no copy on the hub is known; lay .* and give that folder as --mirror"):
            ask("local/pep3k", "default", "test")
    assert not server.requests


@pytest.mark.parametrize("name", ["", "..", "../../x", "/etc"])
def test_a_split_can_not_leave_the_repository(server: HubServer, name: str) -> None:
    with pytest.raises(TaskError, match="name is needed"):
        hub_datasets.dataset_files(DATASET, "default", name)
    assert not server.requests


@pytest.mark.parametrize("token", [None, "hf_not_accepted"])
def test_a_gated_repository_says_where_to_accept_and_how_to_log_in(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    server.gated |= {DATASET, MODEL}
    monkeypatch.setenv("HF_TOKEN", token or "")
    _fails(TaskError, f"{server.url}/datasets/{DATASET}", "licence", "hf auth login", "HF_TOKEN")
    with pytest.raises(ModelFileError, match=f"{server.url}/{MODEL}"):
        hub_models.checkpoint_folder(MODEL)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(hub_datasets.dataset_files(DATASET, "default", "validation")) == 2


def test_a_private_repository_needs_a_token(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.private.add(DATASET)
    _fails(TaskError, "private", "hf auth login")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(hub_datasets.dataset_files(DATASET, "default", "validation")) == 2


@pytest.mark.parametrize("ask", [
    lambda: hub_datasets.dataset_files(DATASET, "default", "validation"),
    lambda: hub_datasets.split_to_fetch(DATASET, "default", "validation"),
    lambda: hub_models.repository_files(DATASET, None),
    lambda: hub_models.checkpoint_folder(DATASET),
])  # fmt: skip
@pytest.mark.parametrize(("status", "said"), [
    (403, "refused access (HTTP 403)"), (404, "has no such thing (HTTP 404)"),
    (429, "wants fewer requests (HTTP 429); wait"), (500, "answered HTTP 500; run again later"),
])  # fmt: skip
def test_a_hub_that_refuses_is_not_said_to_be_out_of_reach(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    ask: Callable[[], object], status: int, said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    logging.getLogger("huggingface_hub").addHandler(caplog.handler)  # which passes nothing on to the root
    server.broken[DATASET] = status
    with pytest.raises((TaskError, ModelFileError)) as caught:
        ask()
    assert f"{server.url} {said}" in str(caught.value)
    assert "reached" not in str(caught.value)
    logging.getLogger("huggingface_hub").removeHandler(caplog.handler)
    assert caplog.messages == []  # the client's own lines would stand before ours


def test_a_split_that_is_listed_and_did_not_come_down(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("gguf_eval.files.hub_datasets.snapshot", lambda wanted, patterns: tmp_path)
    with pytest.raises(TaskError, match=r"no parquet files of split 'default/validation'; .* lists it, and none"):
        hub_datasets.dataset_files(DATASET, "default", "validation")
    server.broken[DATASET] = 403
    with pytest.raises(TaskError, match=r"no parquet files of split 'default/validation'; .*\(HTTP 403\)"):
        hub_datasets.dataset_files(DATASET, "default", "validation")


def test_no_server_at_all(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    _fails(TaskError, "can't be reached", "http://127.0.0.1:9")


def test_a_hub_that_never_answers(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gguf_eval.files.hub._ANSWER_SECONDS", 0.2)
    server.stalled.add(DATASET)
    _fails(TaskError, "can't be reached", "timed out", server.url)
    server.stalled.clear()
    files = hub_datasets.dataset_files(DATASET, "default", "validation")
    server.stalled.add(DATASET)  # what has come down is enough
    assert hub_datasets.dataset_files(DATASET, "default", "validation") == files


def test_a_slow_hub_is_waited_for(server: HubServer) -> None:
    server.slow_seconds = 0.05
    assert len(hub_datasets.dataset_files(DATASET, "default", "validation")) == 2


def test_a_checkpoint_is_only_the_files_needed(server: HubServer) -> None:
    folder, source = hub_models.checkpoint_folder(MODEL, weights=False)
    assert _names(folder) == ["config.json"]
    folder, source = hub_models.checkpoint_folder(MODEL)
    assert _names(folder) == ["config.json", "model.safetensors"]
    assert source == hub_models.HubSource(MODEL, folder.name, f"{server.url}/{MODEL}")
    assert len(source.commit) == 40
    assert hub_models.checkpoint_folder(MODEL, revision=source.commit)[0] == folder


def test_the_environment_alone_points_a_new_process_here(server: HubServer, tmp_path: Path) -> None:
    code = (
        "import json, sys; from gguf_eval.files.hub_datasets import dataset_files;"
        f"print(json.dumps([str(p) for p in dataset_files({DATASET!r}, 'default', 'validation')]))"
    )
    environment = os.environ | server.environment(tmp_path / "second cache", TOKEN)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    files = [Path(name) for name in json.loads(done.stdout)]
    assert [path.read_bytes() for path in files] == [b"first", LARGE]
    assert all(path.is_relative_to(tmp_path / "second cache") for path in files)
