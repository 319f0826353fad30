"""What a measurement says: figures, noise, environments; `bench` and `doctor` as a user meets them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import pytest
from in_process import gguf_eval_here

from gguf_eval.analysis.costs import (
    context_warnings,
    noise_warnings,
    placing,
    point_cost,
    speed_warnings,
    state_warnings,
)
from gguf_eval.analysis.environments import environment_warnings
from gguf_eval.llama.log import Buffer, buffers_in, offloaded_layers
from gguf_eval.machine import _cpu_quota
from gguf_eval.report import notes
from gguf_eval.report.machine import costs_document, print_costs, print_doctor
from gguf_eval.runtime.energy import EnergyMeter, spent
from gguf_eval.store.records import MeasurementRecord, PointRecord, SpeedRecord
from gguf_eval.study.doctor import Examination, Problem


def point(label: str = "Q8_0", **changes: Any) -> PointRecord:
    return builders.point(1, label, 8.5, {}, model="m", **changes)


def test_a_quiet_machine_gets_no_warning() -> None:
    quiet = SpeedRecord("pp512", 512, (1.00, 1.01, 0.99), anchor_seconds=1.02)
    assert speed_warnings([quiet]) == []
    state = {"at_seconds": 0.0, "busy_seconds": 10.0, "own_seconds": 5.0, "cpu_mhz": 3000, "power": "mains"}
    later = {**state, "at_seconds": 10.0, "busy_seconds": 30.2, "own_seconds": 25.0, "cpu_mhz": 2900}
    assert state_warnings([state, later]) == []
    assert state_warnings([state]) == []


def test_a_report_names_the_points_that_a_busy_machine_was_timed_on() -> None:
    quiet = SpeedRecord("pp512", 512, (1.00, 1.01, 0.99), anchor_seconds=1.02)
    noisy = SpeedRecord("tg128", 128, (1.0, 1.0, 1.6), anchor_seconds=1.0)
    points = [point("Q8_0", speed=(quiet,)), point("Q4_0", speed=(noisy,))]
    assert noise_warnings(points[:1]) == []
    (line,) = noise_warnings(points)
    assert "Q4_0 (tg128: the repetitions deviate by 29 % from their mean and 1 more)" in line
    assert "Q8_0" not in line


def test_noise_is_named_with_its_numbers() -> None:
    noisy = SpeedRecord("tg128", 128, (1.0, 1.0, 1.0, 2.0), anchor_seconds=1.3)
    assert speed_warnings([noisy]) == [
        "tg128: the repetitions deviate by 40 % from their mean",
        "tg128: 1 of 4 repetitions took up to 2.0 times the median",
        "tg128: once more at the end it took 30 % longer",
    ]
    state = {"at_seconds": 0.0, "busy_seconds": 10.0, "own_seconds": 5.0, "cpu_mhz": 3000}
    later = {"at_seconds": 10.0, "busy_seconds": 35.0, "own_seconds": 20.0, "cpu_mhz": 2000, "power": "battery at 40 %"}
    assert state_warnings([state, later]) == [
        "other programs kept 1.0 processors busy meanwhile",
        "the processor's clock fell from 3000 to 2000 MHz",
        "on battery at 40 %: many machines compute slower without mains",
    ]


def test_points_measured_on_different_machines_or_builds_are_told() -> None:
    def environment(processor: str, build: str) -> dict[str, Any]:
        return {
            "machine": {"processor": processor, "physical_cores": 2, "system": "s"},
            "llama_cpp": {"llama_cpp": build},
        }

    alike = [point("F16", environments=(environment("A", "1"),)), point("Q8_0", environments=(environment("A", "1"),))]
    assert environment_warnings(alike) == []
    other = [*alike, point("Q4_0", environments=(environment("B", "1"),))]
    assert environment_warnings(other) == ["these points were not measured alike (processor): F16, Q8_0: A; Q4_0: B"]


def test_the_costs_of_a_point_are_told_in_full() -> None:
    details = {
        "load_seconds": 0.5, "context": 4096, "layers": 0, "layer_count": 31, "reasons": ["as asked for"],
        "devices": [],
        "buffers": [{"place": "CPU", "holds": "KV", "size_bytes": 94_000_000}],
        "predicted": {"context": 4096, "resident_bytes": 270_000_000, "device_bytes": {}}, "device_memory": {},
    }  # fmt: skip
    record = point(
        speed=(SpeedRecord("pp512", 512, (1.0, 1.28), (1.01, 1.29), ({"RAPL package-0": 51.2}, {})),),
        memory={"peak_rss": 320_000_000, "rss_before_load": 50_000_000, "file_rss": 160_000_000,
                "anonymous_rss": 160_000_000},
        measurement=MeasurementRecord({"n_ctx": 4096}, details, {"peak_rss": "VmHWM"}),
    )  # fmt: skip
    cost = point_cost(record)
    assert cost.prediction_error == pytest.approx(0.0)
    (document,) = costs_document([cost], {})["points"]
    assert document["tests"]["pp512"]["tokens_per_second"] == [512.0, 400.0]
    assert document["tests"]["pp512"]["joules_per_token"] == {"RAPL package-0": pytest.approx(0.1)}
    assert document["memory"]["peak_rss"] == {"bytes": 320_000_000, "method": "VmHWM"}
    text = builders.printed(lambda console: print_costs([cost], console))
    assert [" ".join(line.split()) for line in text.splitlines()] == [
        "point test tokens/s n first token J/token",
        "m Q8_0 pp512 456.0 ± 79.2 2 1.15 s 0.10 (RAPL package-0)",
        "",
        "m Q8_0: peak 320 MB (160 MB file, 160 MB anonymous) at a context of 4096, loaded in 0.5 s",
        "the model's part 270 MB, predicted 270 MB (+0.0 %)",
        "CPU: KV cache 94 MB",
        "! m Q8_0: pp512: the repetitions deviate by 17 % from their mean",
    ]


def test_buffers_are_read_from_the_log() -> None:
    log = [
        "load_tensors: offloaded 20/31 layers to GPU",
        "load_tensors:   CPU_Mapped model buffer size =   136.40 MiB",
        "load_tensors: RPC0[127.0.0.1:5] model buffer size =     0.00 MiB",
        "llama_kv_cache: RPC0[127.0.0.1:5] KV buffer size =    60.00 MiB",
        "llama_context:        CPU  output buffer size =     0.19 MiB",
        "sched_reserve:        CPU compute buffer size =    98.25 MiB",
        "~llama_context:        CPU compute buffer size is  17.5137 MiB, matches expectation of  17.5137 MiB",
    ]
    mib = 2**20
    assert buffers_in(log) == (
        Buffer("CPU_Mapped", "model", round(136.4 * mib)),
        Buffer("RPC0[127.0.0.1:5]", "KV", 60 * mib),
        Buffer("CPU", "output", round(0.19 * mib)),
        Buffer("CPU", "compute", round(98.25 * mib)),
    )
    assert offloaded_layers(log) == (20, 31)
    assert offloaded_layers(log[1:]) is None


def test_energy_is_counted_over_the_end_of_a_counter_and_never_guessed(tmp_path: Path) -> None:
    folder = tmp_path / "intel-rapl:0"
    folder.mkdir()
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of the package: counted in it
    (folder / "name").write_text("package-0\n")
    (folder / "max_energy_range_uj").write_text("10000000\n")
    (folder / "energy_uj").write_text("9000000\n")
    meter = EnergyMeter(tmp_path)
    before = meter.read()
    (folder / "energy_uj").write_text("2000000\n")
    assert spent(before, meter.read())["RAPL package-0"] == pytest.approx(3.0)
    (folder / "energy_uj").unlink()
    assert "RAPL package-0" not in meter.read()
    assert not [name for name in EnergyMeter(tmp_path / "nowhere").sources if name.startswith("RAPL")]


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gguf_eval", *arguments], capture_output=True, text=True, encoding="utf-8", **options
    )


def test_bench_tells_every_repetition_and_keeps_it_where_asked(tiny_f32: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_f32, tmp_path / "m.gguf")
    arguments = ("bench", "m.gguf", "-p", "16", "-n", "4", "-d", "0,32", "-r", "2", "-t", "1", "-ctk", "F16,Q8_0")
    done = command(*arguments, "--json", "--study", "b.sqlite", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    points = json.loads(done.stdout)["points"]
    assert [found["name"] for found in points] == ["m F32", "m F32 KV Q8_0/F16"]
    for found in points:
        assert set(found["tests"]) == {"pp16", "tg4", "pp16 @ d32", "tg4 @ d32"}
        assert all(len(test["tokens_per_second"]) == 2 for test in found["tests"].values())
        assert {buffer["holds"] for buffer in found["buffers"]} >= {"model", "KV", "compute"}
        assert found["measured_bytes"] > 0
        assert found["predicted_bytes"] > 0
    assert (tmp_path / "b.sqlite").exists()
    text = command("bench", "m.gguf", "-p", "0", "-n", "2", "-r", "1", "-t", "1", cwd=tmp_path)
    assert "tg2" in text.stdout
    assert "pp" not in text.stdout.split("peak")[0]


def test_bench_fails_in_one_line(tiny_f32: Path) -> None:
    wrong = gguf_eval_here("bench", tiny_f32, "-p", "many")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "--n-prompt needs numbers of tokens" in wrong.stderr


def test_doctor_says_what_would_go_wrong_and_what_mends_it(tmp_path: Path) -> None:
    import os

    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "GGUF_EVAL_CACHE": str(tmp_path)}
    text = command("doctor", env=environment).stdout
    assert "http://127.0.0.1:9 does not answer" in text
    assert "\n    export HF_ENDPOINT" in text
    for word in ("python", "system", "processor", "threads", "memory", "llama.cpp", "backends", "features", "device",
                 "disk", "hub", "energy"):  # fmt: skip
        assert f"\n{word}  " in f"\n{text}"
    document = json.loads(command("doctor", "--json", env=environment).stdout)
    assert document["problems"][0].keys() == {"what", "command"}
    assert document["devices"]
    assert "CPU" in document["backends"]


def test_what_doctor_found_is_told_in_lines_of_the_terminal(tmp_path: Path) -> None:
    machine = {"processor": "P", "physical_cores": 2, "logical_cores": 4, "system": "S", "architecture": "A",
               "python": "3.12.0"}  # fmt: skip
    build = {"llama_cpp": "1.0", "llama_cpp_python": "0.4", "system_info": "CPU : AVX2 = 1 | FMA = 0 | REPACK = 1"}
    device = {"name": "CUDA0", "description": "G", "kind": "GPU", "free_bytes": 7 * 10**9, "total_bytes": 8 * 10**9}
    found = Examination(
        machine,
        build,
        None,
        Path("models"),
        (device,),
        ("CPU", "CUDA"),
        3 * 10**9,
        4 * 10**9,
        10**10,
        "H answers",
        (),
        (Problem("a sentence about something that would go wrong on a machine that is like this one here", "mend it"),),
    )
    printed = {}
    for terminal in (True, False):
        options = {**builders.AS_TERMINAL, "force_terminal": terminal}
        printed[terminal] = builders.printed(lambda console: print_doctor(found, console), 60, **options).splitlines()
    assert printed[False][5:] == [
        "llama.cpp  1.0, in llama-cpp-python 0.4",
        "backends   CPU, CUDA",
        "features   AVX2, REPACK",
        "device     CUDA0 (G, GPU): 7,000 MB free of 8,000 MB",
        "disk       10.0 GB free where made models are kept: models",
        "hub        H answers",
        "energy     no counter that can be read",
        "",
        "1 thing would go wrong, or slower than need be:",
        "! a sentence about something that would go wrong on a machine that is like this one here",
        "    mend it",
    ]
    assert printed[True][-4:] == [
        "1 thing would go wrong, or slower than need be:",
        "! a sentence about something that would go wrong on a",
        "  machine that is like this one here",
        "    mend it",
    ]
    unloaded = replace(found, problems=(), build_error="no library")
    quiet = builders.printed(lambda console: print_doctor(unloaded, console), 60)
    assert "llama.cpp  does not load: no library" in quiet
    assert quiet.endswith("Nothing that would go wrong was found.\n")


@pytest.mark.parametrize(
    ("files", "quota"),
    [({"cpu.max": "150000 100000\n"}, 1.5), ({"cpu.max": "max 100000\n"}, None), ({}, None),
     ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
     ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None)],
)  # fmt: skip
def test_a_container_s_limit_of_processors_is_read(files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert _cpu_quota(tmp_path) == quota


def test_where_layers_were_is_told_with_what_they_took_and_why() -> None:
    details = {
        "context": 1024, "layers": 20, "layer_count": 31, "reasons": ["first", "then"],
        "devices": [{"name": "CUDA1"}, {"name": "CUDA10"}],
        "buffers": [{"place": place, "holds": "model", "size_bytes": size} for place, size in
                    (("CPU", 5), ("CUDA1", 100_000_000), ("CUDA10", 3_000_000), ("CUDA1_Split", 20_000_000))],
        "predicted": {"context": 1024, "device_bytes": {"CUDA1": 121_000_000}}, "device_memory": {},
    }  # fmt: skip
    measured = point(measurement=MeasurementRecord({"n_ctx": 4096}, details, {}))
    found = placing(measured)
    assert found is not None
    assert found.reduced
    assert found.device_bytes == {"CUDA1": 120_000_000, "CUDA10": 3_000_000}
    assert notes.placing(found) == (
        "20 of 31 layers on devices (120 MB on CUDA1, predicted 121 MB, 3.00 MB on CUDA10, predicted –) "
        "at a context of 1024: first; then"
    )
    whole = MeasurementRecord({"n_ctx": 4096}, {**details, "context": 4096}, {})
    assert context_warnings([measured, point("F16")]) == []
    assert context_warnings([measured, point("F16", measurement=whole)]) == [
        "speed and memory of m were not measured with one context: Q8_0: 1024; F16: 4096 tokens"
    ]
