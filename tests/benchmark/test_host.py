"""The runner on this host, on real artifacts: what it reports, and what it refuses to time."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavit_edge.artifact import runners
from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import read_entries
from lavit_edge.benchmark import __main__ as benchmark
from lavit_edge.benchmark import devices, facts, host
from lavit_edge.benchmark.report import edited, read_report
from lavit_edge.errors import UserError

SHORT = ["--minutes", "0.005"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.pte", "model.onnx", "model.ort"])
def test_a_report_for_each_number_of_threads(name: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main([str(bundle / name), "--threads", "1,2,1", *SHORT, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    reports = [read_report(file) for file in tmp_path.iterdir()]
    assert sorted(report["settings"]["threads"] for report in reports) == [1, 2]
    manifest = json.loads((bundle / "manifest.json").read_text())["artifacts"][name]
    payload = read_payload(read_entries(bundle / name))
    for report in reports:
        assert not edited(report)
        assert report["artifact"]["content_sha256"] == manifest["content_sha256"]
        assert report["artifact"]["bytes"] == (bundle / name).stat().st_size
        assert report["artifact"]["contract_sha256"] == payload.contract.sha256
        assert (report["artifact"]["precision"], report["artifact"]["image_size"]) == ("int8", 64)
        assert report["artifact"]["top1_permille"] == round(1000 * payload.provenance["val_top1"])
        assert report["self_test"]["passed"]
        assert report["self_test"]["pictures"] == len(payload.golden) >= 4 + 16
        assert report["latency"]["runs"] >= 50
        assert report["least_duration_met"]
        assert report["runtime"]["delegated_macs_permille"] > 500
        assert report["load"]["cold_ns"] > report["latency"]["p50_ns"]
        assert report["memory"]["peak_bytes"] > 20_000_000
        assert report["preprocessing"]["frame"] == "640x480 RGB"
    assert "p50" in shown
    assert str(tmp_path) in shown.replace("\n", "")


def report_of(artifact: Path, **changes: Any) -> dict[str, Any]:
    return host.benchmark(
        artifact,
        **(
            dict(threads=1, seconds=0.01, force=False, delegation={"delegated_macs_permille": None, "graph_breaks": None})
            | changes
        ),
    )


def wrong(path: Path, threads: int, trusted: bool) -> tuple[Callable[[np.ndarray], np.ndarray], Any]:
    """The artifact's runtime with two logits exchanged."""
    run, entries = REAL(path, threads, trusted)
    return lambda tensor: run(tensor)[:, [1, 0, 2, 3, 4]] + np.float32(9), entries


REAL = host.open_model


@pytest.mark.parametrize(
    ("name", "opener"), [("model.pte", "_pte"), ("model.onnx", "onnx_session"), ("model.ort", "onnx_session")]
)
def test_memory_is_that_of_one_loaded_model(name: str, opener: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second session to read the payload with made 86.7 MB 105.2, of the bundled .onnx."""
    calls: list[str] = []

    def watched(place: Any, name: str) -> None:
        real = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *given, **named: calls.append(name) or real(*given, **named))

    for place, watch in ((runners, opener), (facts, "peak_memory"), (facts, "artifact"), (host, "_preprocessing")):
        watched(place, watch)
    report_of(bundle / name)
    assert calls[:2] == [opener, "peak_memory"]
    assert sorted(calls[2:]) == ["_preprocessing", "artifact"]


def test_wrong_logits_are_not_timed_unless_forced(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "open_model", wrong)
    report = report_of(bundle / "model.onnx")
    assert (report["latency"], report["least_duration_met"]) == (None, False)
    assert (report["self_test"]["passed"], report["self_test"]["forced"]) == (False, False)
    assert "steps off" in report["self_test"]["detail"]
    forced = report_of(bundle / "model.onnx", force=True)
    assert forced["latency"]["runs"] >= 50
    assert (forced["self_test"]["passed"], forced["self_test"]["forced"]) == (False, True)
    assert any("timed by force" in line for line in benchmark.remarks(forced))


def test_a_changed_byte_is_not_timed(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(UserError, match=r"is not what was exported: .*nothing was measured"):
        benchmark.main([str(tmp_path / "model.onnx"), *SHORT, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.onnx"], "not an artifact that runs here"),
        (["text.onnx"], "no digest"),
        (["model.mlpackage"], "Apple devices only"),
        (["model.onnx", "--device", "toaster"], "no runner 'toaster'"),
        (["model.onnx", "--device", "host:7"], "takes no address"),
    ],
)
def test_bad_input(arguments: list[str], words: str, bundle: Path, tmp_path: Path) -> None:
    shutil.copy(bundle / "model.onnx", tmp_path)
    shutil.copytree(bundle / "model.mlpackage", tmp_path / "model.mlpackage")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(UserError, match=words) as caught:
        benchmark.main([str(tmp_path / arguments[0]), *arguments[1:], *SHORT, "--out", str(tmp_path / "out")])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("threads", ["0", "two"])
def test_bad_options(threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        benchmark.main(["model.onnx", "--threads", threads])
    assert caught.value.code == 2
    assert "threads" in capsys.readouterr().err


@pytest.mark.parametrize("minutes", ["-1", "nan", "1441"])
def test_bad_minutes(minutes: str) -> None:
    with pytest.raises(UserError, match=f"^minutes must be more than 0 and at most a day, not {minutes}$"):
        benchmark.main(["model.onnx", "--minutes", minutes])


@pytest.mark.parametrize("wrong", [{"threads": ()}, {"threads": (0,)}, {"threads": (1000,)}, {"seconds": 0.0}])
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^(threads|minutes) must be "):
        devices.BenchmarkConfig(**wrong)


def test_a_process_that_dies_is_one_line(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -SEGV $$\n")
    script.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(script))
    with pytest.raises(UserError, match="ended with -11"):
        devices.measure("host", bundle / "model.onnx", devices.BenchmarkConfig(seconds=0.01))


def test_runs_go_on_until_both_time_and_number_are_reached() -> None:
    now = [0]

    def clock() -> int:
        return now[0]

    def run() -> None:
        now[0] += 300_000_000

    starts, samples = host.timed_runs(run, 1.0, 2, clock)
    assert samples == [300_000_000] * 4
    assert starts == [0, 300_000_000, 600_000_000, 900_000_000]
    assert len(host.timed_runs(run, 0.1, 3, clock)[1]) == 3


@pytest.mark.slow
def test_several_artifacts_in_turns(bundle: Path, tmp_path: Path) -> None:
    artifacts = [str(bundle / "model.onnx"), str(bundle / "model.pte")]
    assert benchmark.main([*artifacts, *SHORT, "--out", str(tmp_path)]) == 0
    reports = [read_report(file) for file in tmp_path.iterdir()]
    assert {report["artifact"]["file"] for report in reports} == {"model.onnx", "model.pte"}
    assert len(reports) == 6
    assert len({report["settings"]["turns"]["session"] for report in reports}) == 3
    assert {report["settings"]["turns"]["sides"] for report in reports} == {2}
    assert all(len(report["latency"]["cpu_ns"]) == report["latency"]["runs"] for report in reports)
    assert all(report["least_duration_met"] for report in reports)


def test_turns_end_when_one_side_cannot_go_on(bundle: Path, tmp_path: Path) -> None:
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "other.onnx").write_bytes(data)
    with pytest.raises(UserError, match=r"other\.onnx is not what was exported"):
        benchmark.main([str(bundle / "model.onnx"), str(tmp_path / "other.onnx"), *SHORT, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    assert multiprocessing.active_children() == []
