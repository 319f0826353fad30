"""What a user's word for a model stands for, here and on the hub, in every command; and split models as a whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make, tiny
from cli_process import FAST
from hub_server import HubServer
from in_process import gguf_eval_here
from quantize_fixtures import write_model
from split_files import split_model

from gguf_eval.errors import ModelFileError, UsageError
from gguf_eval.files import hub_models
from gguf_eval.files.hub_cache import repository_of
from gguf_eval.files.plan import read_headers
from gguf_eval.files.references import HubModel, resolve, split_name
from gguf_eval.files.remote import inspect_headers
from gguf_eval.files.source import Unfetched, locate_source, model_source
from gguf_eval.report.progress import byte_progress
from gguf_eval.runtime.answer_file import AnswerKey, answer_path
from gguf_eval.runtime.reference_file import ReferenceKey, reference_path

TEXT = "The cat sat in the house and the dog ran to the sea. " * 12
SMALL: dict[str, Any] = {"feed_forward": 256, "layers": 1}


@pytest.fixture
def server(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    models = place / "files" / "models" / "someone"
    several, single = models / "Tiny-GGUF", models / "Single-GGUF"
    for folder in (several / "BF", single):
        folder.mkdir(parents=True)
    whole = write_model(several / "Tiny-F16.gguf", **SMALL)
    write_model(several / "Tiny-UD-F16.gguf", **SMALL, seed=1)
    split_model(write_model(place / "other.gguf", **SMALL, seed=2), several / "BF" / "Tiny-F32", 3, bare_first=True)
    shutil.copy(whole, several / "mmproj-Tiny-F16.gguf")
    (several / "Tiny-imatrix.gguf").write_bytes(b"GGUF")
    (several / "config.json").write_text("{}")
    shutil.copy(whole, single / "Single.Q4_1.gguf")
    with HubServer(place / "files") as running:
        for name, value in running.environment(place / "hub-cache").items():
            monkeypatch.setenv(name, value)
        yield running


def chosen(reference: str) -> list[str]:
    found = resolve(reference)
    assert isinstance(found, HubModel)
    return [file.path for file in found.files]


def test_forms_of_a_model_on_the_hub(server: HubServer) -> None:
    parts = [f"BF/Tiny-F32-{number:05d}-of-00003.gguf" for number in (1, 2, 3)]
    assert chosen("someone/Single-GGUF") == ["Single.Q4_1.gguf"]
    assert chosen("hf://someone/Single-GGUF:q4_1") == ["Single.Q4_1.gguf"]
    assert chosen("someone/Tiny-GGUF:F16") == ["Tiny-F16.gguf"]
    assert chosen("someone/Tiny-GGUF:fp16") == ["Tiny-F16.gguf"]
    assert chosen("someone/Tiny-GGUF@main:UD-F16") == ["Tiny-UD-F16.gguf"]
    assert chosen("someone/Tiny-GGUF:F32") == parts
    assert chosen(f"someone/Tiny-GGUF/{parts[1]}") == parts
    assert chosen("someone/Tiny-GGUF@main/Tiny-F16.gguf") == ["Tiny-F16.gguf"]


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("someone/Tiny-GGUF", "several model files; name one as someone/Tiny-GGUF:F32; it has F32, F16, UD-F16"),
        ("someone/Tiny-GGUF:Q4_K_M", "no model file of level 'Q4_K_M'"),
        ("someone/Tiny-GGUF/Tiny-F61.gguf", "no such file; did you mean 'Tiny-F16.gguf'"),
        ("someone/Absent-GGUF:F16", "no such repository"),
        ("absent/folder/x.gguf", "no such file here; model 'absent/folder': no such repository"),
        ("absent.gguf", "absent.gguf: no such file; give the path of a GGUF model file"),
        ("/absent/x.gguf", "no such file"),
        ("files/models/x.gguf", "no such file; give the path"),
        ("one/two/three", "give a GGUF file, a checkpoint folder or owner/name on the hub"),
    ],
)
def test_what_stands_for_no_model(server: HubServer, reference: str, words: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        resolve(reference)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_part_that_is_missing_is_said(server: HubServer, place: Path) -> None:
    (place / "files/models/someone/Tiny-GGUF/BF/Tiny-F32-00002-of-00003.gguf").unlink()
    with pytest.raises(ModelFileError, match="2 of its 3 parts are there"):
        resolve("someone/Tiny-GGUF:F32")


def test_a_model_on_the_hub_is_located_without_its_weights_and_fetched_once(server: HubServer, place: Path) -> None:
    reference, cache = "someone/Tiny-GGUF:F32", place / "cache"
    found = locate_source(reference, cache=cache)
    assert isinstance(found, Unfetched)
    whole = read_headers(place / "other.gguf")[0]
    sizes = [path.stat().st_size for path in (place / "files/models/someone/Tiny-GGUF/BF").iterdir()]
    assert (found.level, found.parameters, found.size_bytes) == ("F32", whole.parameters, sum(sizes))
    assert sum(file.size_bytes for file in found.downloads) == sum(sizes)
    assert not list((place / "hub-cache").rglob("*.gguf"))
    path, _ = model_source(reference, cache=cache, show=byte_progress)
    assert path.name == "Tiny-F32-00001-of-00003.gguf"
    assert repository_of(path) == "someone/Tiny-GGUF"
    assert len(read_headers(path)) == 3
    assert locate_source(reference, cache=cache) == path


def test_what_the_cache_holds_is_found_without_a_network(
    server: HubServer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = model_source("someone/Tiny-GGUF:F32", cache=place / "cache", show=byte_progress)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert model_source("someone/Tiny-GGUF:F32", cache=place / "cache", show=byte_progress)[0] == path
    with pytest.raises(ModelFileError, match="no model file of level 'UD-F32'.*it has F32"):
        resolve("someone/Tiny-GGUF:UD-F32")
    with pytest.raises(ModelFileError, match="HF_HUB_OFFLINE forbids downloading"):
        resolve("someone/Single-GGUF")


def test_every_command_takes_a_model_on_the_hub(server: HubServer, place: Path) -> None:
    (place / "t.txt").write_text(TEXT)
    reference = "someone/Tiny-GGUF:F32"
    shown = json.loads(gguf_eval_here("inspect", reference, "--json").stdout)
    assert (shown["parts"], shown["parameters"]) == (3, read_headers(place / "other.gguf")[0].parameters)
    for command in (
        ("run", reference, *FAST, "-n", "5", "--json"),
        ("bench", reference, "-p", "8", "-n", "4", "-r", "1", "-c", "64", "--threads", "1"),
        ("perplexity", reference, "--text", "t.txt", "-c", "32", "--threads", "1"),
        ("quantize", reference, "-q", "Q8_0", "-o", "made"),
        ("imatrix", "someone/Single-GGUF", "--text", "t.txt", "-c", "64", "--chunks", "2"),
        ("inspect", reference),
        ("tasks", "show", "count.toml", "--model", reference, "-n", "1"),
    ):
        done = gguf_eval_here(*command)
        assert done.returncode == 0, (command, done.stderr)
    assert (place / "made" / "Tiny-Q8_0.gguf").is_file()
    assert (place / "Single.imatrix.gguf").is_file()
    assert (place / "Tiny.study.sqlite").is_file()


def test_a_plan_for_a_model_on_the_hub_downloads_nothing(server: HubServer, place: Path) -> None:
    planned = gguf_eval_here("run", "mine=someone/Tiny-GGUF:F32", "-q", "F32,Q8_0", *FAST, "--plan", "--json")
    document = json.loads(planned.stdout)
    assert [(one["repo"], one["files"]) for one in document["downloads"]] == [("someone/Tiny-GGUF", 3)]
    assert document["conversions"] == []
    assert [point["name"] for point in document["points"]] == ["mine F32", "mine Q8_0"]
    assert not list((place / "hub-cache").rglob("*.gguf"))


def test_files_of_one_name_in_two_repositories_are_two(server: HubServer, place: Path) -> None:
    folder = place / "files" / "models" / "other" / "Tiny-GGUF"
    folder.mkdir(parents=True)
    write_model(folder / "Tiny-F16.gguf", **SMALL, seed=4)
    references = ("someone/Tiny-GGUF:F16", "other/Tiny-GGUF:F16")
    planned = json.loads(gguf_eval_here("run", *references, *FAST, "--plan", "--json").stdout)
    assert [one["repo"] for one in planned["downloads"]] == ["someone/Tiny-GGUF", "other/Tiny-GGUF"]
    assert len({point["name"] for point in planned["points"]}) == 2
    done = json.loads(gguf_eval_here("run", *references, *FAST, "-n", "5", "--json").stdout)
    assert {point["model"] for point in done["points"]} == {"someone/Tiny-GGUF/Tiny", "other/Tiny-GGUF/Tiny"}


def test_names_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert split_name("qwen=a.gguf") == ("qwen", "a.gguf")
    assert split_name("qwen 3=owner/name:Q4_0") == ("qwen 3", "owner/name:Q4_0")
    assert split_name("a.gguf") == ("", "a.gguf")
    assert split_name("folder/a=b.gguf") == ("", "folder/a=b.gguf")
    Path("a=b.gguf").touch()
    assert split_name("a=b.gguf") == ("", "a=b.gguf")
    with pytest.raises(UsageError, match="needs a name before"):
        split_name(" =a.gguf")


def test_a_second_file_of_weights_further_down_is_not_the_checkpoints(server: HubServer, place: Path) -> None:
    folder = place / "files" / "models" / "someone" / "Llama"
    weights = make(folder, tiny()) / "model.safetensors"
    (folder / "original").mkdir()
    shutil.copy(weights, folder / "original" / "model.safetensors")
    found = locate_source("someone/Llama", cache=place / "cache")
    assert isinstance(found, Unfetched)
    assert [file.path for file in found.downloads] == ["model.safetensors"]
    model_source("someone/Llama", cache=place / "cache", show=byte_progress)
    assert isinstance(locate_source("someone/Llama", cache=place / "cache"), Path)
    source = hub_models.checkpoint_folder("someone/Llama", weights=False)[1]
    assert hub_models.weights_to_fetch(source) == []


def kld(reference: Path, candidate: Path) -> float:
    arguments = ("--text", "t.txt", "-c", "32", "--chunks", "2", "--threads", "1", "--json")
    done = gguf_eval_here("perplexity", candidate, "--reference", reference, *arguments)
    assert done.returncode == 0, done.stderr
    return float(json.loads(done.stdout)[-1]["divergence"]["mean"]["value"])


def test_a_split_model_is_known_by_all_its_parts(place: Path) -> None:
    (place / "t.txt").write_text(TEXT)
    first = write_model(place / "one.gguf", **SMALL, scale=0.3)
    second = write_model(place / "two.gguf", **SMALL, scale=0.3, seed=9)
    reference = split_model(first, place / "ref-F32", 2, bare_first=True)[0]
    assert kld(reference, second) > 0.01
    split_model(second, place / "ref-F32", 2, bare_first=True)
    assert kld(reference, second) == pytest.approx(0, abs=1e-5)
    assert kld(place / "ref-F32-00002-of-00002.gguf", second) == pytest.approx(0, abs=1e-5)  # any part will do


def test_a_part_under_another_name_is_not_taken_for_the_whole(place: Path) -> None:
    split_model(place / "tiny.gguf", place / "cut", 2)[0].rename(place / "renamed.gguf")
    with pytest.raises(ModelFileError, match="is one of 2 parts, its name makes it one of 1"):
        inspect_headers(str(place / "renamed.gguf"))


def test_a_stored_reference_is_of_one_build(tmp_path: Path) -> None:
    key = ReferenceKey("a" * 64, "b" * 64, 300, 2, 8, {})
    assert reference_path(tmp_path, key) == reference_path(tmp_path, replace(key))
    assert reference_path(tmp_path, key) != reference_path(tmp_path, replace(key, library="another"))
    answers = AnswerKey("a" * 64, {}, "task")
    assert answer_path(tmp_path, answers) != answer_path(tmp_path, replace(answers, library="another"))
