"""Loading reports, refusing what cannot be compared, and the command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavit_edge import compare as command
from lavit_edge.benchmark.comparison import Row, compare, find_baseline, load
from lavit_edge.benchmark.report import Report, digest, lacks, write_report
from lavit_edge.errors import UserError

Make = Callable[..., Report]
EMULATED: dict[str, Any] = {"device__emulated": True, "device__emulator": "qemu-user cortex-a76"}


def samples(milliseconds: float, seed: int = 0, count: int = 300) -> list[int]:
    noise = np.random.default_rng(seed).normal(size=count)
    return [int(value) for value in 1e6 * milliseconds * np.exp(0.01 * noise)]


@pytest.fixture
def pair(tmp_path: Path, make_report: Make) -> Callable[..., list[Path]]:
    """Two reports as files, 8 and 10 ms, the second with changes."""

    def write(**changes: Any) -> list[Path]:
        paths = [tmp_path / "a.json", tmp_path / "b.json"]
        write_report(make_report(samples(8)), paths[0])
        write_report(make_report(samples(10, 1), **changes), paths[1])
        return paths

    return write


def compared(paths: list[Path], anyway: bool = False) -> Row:
    groups, _ = load(paths)
    return compare(groups, find_baseline(groups, paths, None), anyway)[1]


def test_two_files_are_compared_although_they_are_of_the_same_thing(pair: Callable[..., list[Path]]) -> None:
    row = compared(pair())
    assert row.comparison is not None
    assert row.comparison.verdict == "slower"
    assert 1.2 < row.comparison.ratio < 1.3
    assert row.comparison.low < row.comparison.ratio < row.comparison.high
    assert row.marks == ()
    assert row.group.values["p50_ns"] == json.loads((row.group.paths[0]).read_text())["latency"]["p50_ns"]


@pytest.mark.parametrize(
    ("changes", "field", "values"),
    [
        ({"artifact__contract_sha256": "d" * 64}, "artifact.contract_sha256", ("cccccccccccccccc...", "dddddddddddddddd...")),
        ({"artifact__image_size": 224}, "artifact.image_size", ("160", "224")),
        ({"settings__threads": 2}, "settings.threads", ("1", "2")),
        ({"harness__build": "debug"}, "harness.build", ("release", "debug")),
        (EMULATED, "device.emulated", ("true", "qemu-user cortex-a76")),
    ],
)
def test_what_differs_is_refused_and_named(
    pair: Callable[..., list[Path]], changes: dict[str, Any], field: str, values: tuple[str, str]
) -> None:
    paths = pair(**changes)
    with pytest.raises(UserError, match=r"cannot be compared") as caught:
        compared(paths)
    for word in (field, *values, "b.json"):
        assert word in str(caught.value)
    row = compared(paths, anyway=True)
    assert row.comparison is not None
    assert any(field in mark for mark in row.marks)


@pytest.mark.parametrize(
    ("name", "value", "there"), [("power", "battery", "mains"), ("thermal", "serious", "nominal"), ("low_power", True, "false")]
)
def test_power_and_heat_are_refused(tmp_path: Path, make_report: Make, name: str, value: Any, there: str) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    state = make_report()["conditions"]["before"]
    write_report(make_report(conditions__before={**state, "low_power": False}), paths[0])
    write_report(make_report(conditions__before={**state, "low_power": False, name: value}), paths[1])
    with pytest.raises(UserError, match=rf"conditions\.before\.{name} is {there} in a\.json and {str(value).lower()} in b\.json"):
        compared(paths)


def test_two_emulated_reports_are_refused_too(tmp_path: Path, make_report: Make) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        write_report(make_report(**EMULATED), path)
    with pytest.raises(UserError, match="its milliseconds are not latency"):
        compared(paths)


def test_what_is_not_known_is_a_mark_and_no_refusal(pair: Callable[..., list[Path]]) -> None:
    row = compared(pair(artifact__contract_sha256=None, harness__build=None))
    assert row.comparison is not None
    assert "not known to agree: harness.build, artifact.contract_sha256" in row.marks
    assert "lacks artifact.contract_sha256, harness.build" in row.marks


def test_marks(tmp_path: Path, make_report: Make, pair: Callable[..., list[Path]]) -> None:
    forced = {"passed": False, "pictures": 4, "same_top1": 3, "worst_millisteps": 9000, "forced": True, "detail": "cat: logits"}
    paths = pair(self_test=forced, least_duration_met=False)
    report = json.loads(paths[0].read_text())
    report["notes"] = ["the fastest of all"]
    paths[0].write_text(json.dumps(report))
    groups, _ = load(paths)
    assert groups[0].marks == ("edited: its digest differs",)
    assert groups[1].marks == ("self-test failed, timed by force", "least duration not met")
    failed = tmp_path / "failed.json"
    write_report(make_report(latency=None, self_test={**forced, "forced": False}), failed)
    row = compared([paths[1], failed])
    assert row.comparison is None
    assert "self-test failed" in row.marks


def test_reports_of_a_folder_that_agree_are_repeated_runs(tmp_path: Path, make_report: Make) -> None:
    for index in range(4):
        write_report(make_report(samples(8 + index / 100, index)), tmp_path / "old" / f"{index}.json")
        write_report(make_report(samples(9, index), notes=["x"] * index), tmp_path / "new" / "deep" / f"{index}.json")
    write_report(make_report(samples(8), settings__threads=2), tmp_path / "old" / "two.json")
    groups, left_out = load([tmp_path / "old", tmp_path / "new"])
    assert [(len(group.paths), group.values["threads"]) for group in groups] == [(4, 1), (1, 2), (4, 1)]
    assert left_out == []
    row = compare([groups[0], groups[2]], groups[0])[1]
    assert row.comparison is not None
    assert row.comparison.verdict == "slower"


def test_copies_count_once(tmp_path: Path, make_report: Make) -> None:
    report = make_report()
    for name in ("a", "b", "c"):
        write_report(report, tmp_path / f"{name}.json")
    groups, left_out = load([tmp_path])
    assert [len(group.paths) for group in groups] == [1]
    assert left_out == ["2 copies of reports that are there already"]


def test_files_of_a_folder_that_are_no_reports_are_counted(tmp_path: Path, make_report: Make) -> None:
    write_report(make_report(), tmp_path / "good.json")
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "broken.json").write_text('{"format": "lavit_edge.report/1", "id"')
    groups, left_out = load([tmp_path])
    assert len(groups) == 1
    assert left_out[0].startswith("2 of 3 files are not sound reports; the first: ")
    assert "broken.json" in left_out[0]


def test_other_artifacts_are_no_repeats_and_one_without_a_digest_is_known_by_its_bytes(tmp_path: Path, make_report: Make) -> None:
    for name, content, sha256 in (
        ("a", "b" * 64, "1" * 64),
        ("b", "b" * 64, "2" * 64),  # signed since, the same content
        ("c", "d" * 64, "1" * 64),
        ("d", None, "1" * 64),
        ("e", None, "1" * 64),
        ("f", None, "2" * 64),
    ):
        report = make_report(artifact__content_sha256=content, artifact__sha256=sha256)
        write_report(report, tmp_path / f"{name}.json")
    groups, _ = load([tmp_path])
    assert ["".join(path.stem for path in group.paths) for group in groups] == ["ab", "c", "de", "f"]


def newer(report: Report) -> str:
    return json.dumps({**report, "format": "lavit_edge.report/2"})


def milliseconds(report: Report) -> str:
    report["latency"]["p50_ns"] //= 1_000_000
    return json.dumps({**report, "sha256": digest(report)})


def not_a_number(report: Report) -> str:
    return json.dumps({**report, "load": {**report["load"], "cold_ns": float("nan")}})


def missing(report: Report) -> str:
    del report["device"]
    return json.dumps(report)


def silent(report: Report) -> str:
    report["device"]["cpu"] = None
    assert lacks(report) == ["device.cpu"]
    return json.dumps({**report, "sha256": digest(report)})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (newer, "update it"),
        (milliseconds, "mixed units, 5 looks like milliseconds"),
        (not_a_number, "NaN is not a number of JSON"),
        (missing, "device"),
        (silent, "lacks: must name the null fields device.cpu"),
        (lambda report: json.dumps(report)[:500], "is not JSON"),
        (lambda report: "", "is not JSON"),
        (lambda report: "[]", "is not a benchmark report"),
    ],
)
def test_a_named_file_that_is_not_sound_is_an_error(
    tmp_path: Path, make_report: Make, spoil: Callable[[Report], str], said: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(spoil(make_report()))
    with pytest.raises(UserError, match=said):
        load([path])
    with pytest.raises(UserError, match="no benchmark report in"):
        load([tmp_path])


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no benchmark report in"):
        load([tmp_path])


def test_a_baseline_is_one_thing_and_one_of_the_arguments(tmp_path: Path, make_report: Make) -> None:
    write_report(make_report(), tmp_path / "mixed" / "a.json")
    write_report(make_report(settings__threads=2), tmp_path / "mixed" / "b.json")
    write_report(make_report(), tmp_path / "c.json")
    sources = [tmp_path / "mixed", tmp_path / "c.json"]
    groups, _ = load(sources)
    assert find_baseline(groups, sources, None) is None  # three groups: nobody says which
    assert find_baseline(groups, sources, tmp_path / "c.json") is groups[2]
    with pytest.raises(UserError, match=r"device and setting, not of 2 \(settings.threads 1 against 2\)"):
        find_baseline(groups, sources, tmp_path / "mixed")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "lavit_edge.compare", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True)


def test_the_command_refuses_with_one_line(pair: Callable[..., list[Path]]) -> None:
    done = run(*pair(settings__threads=4))
    assert done.returncode == 2
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("error: these reports cannot be compared: settings.threads is 1 in a.json")
    )
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_command_s_forms(
    pair: Callable[..., list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    paths = pair(device__name="Board | [red]x[/] <b>`\x1b[31m")
    words = [str(path) for path in paths]
    assert command.main(words) == 0
    shown = capsys.readouterr().out
    assert "slower" in shown
    assert "[red]x[/]" in shown
    assert "\x1b[31m" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert command.main([*words, "--markdown"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| 2"))
    assert "Board \\| \\[red\\]x\\[/\\] &lt;b&gt;\\`" in row
    page = tmp_path / "page.html"
    assert command.main([words[0], "--baseline", words[1], "--json", "--html", str(page)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["baseline"] for row in found["rows"]] == [False, True]
    assert found["rows"][0]["comparison"]["verdict"] == "faster"
    assert page.read_text().startswith("<!doctype html>")


def test_a_page_that_cannot_be_written_leaves_nothing(pair: Callable[..., list[Path]], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        command.main([*map(str, pair()), "--html", str(tmp_path / "none" / "page.html")])
    with pytest.raises(UserError, match="does not exist"):
        command.main([str(tmp_path / "gone.json")])


def test_times_of_an_emulator_are_not_shown(tmp_path: Path, make_report: Make, capsys: pytest.CaptureFixture[str]) -> None:
    write_report(make_report([77_123_456] * 60, **EMULATED), tmp_path / "a.json")
    assert command.main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "77.12" not in shown
    assert "emulated: its milliseconds are not latency" in shown


@pytest.mark.slow
def test_ten_thousand_reports(tmp_path: Path, make_report: Make) -> None:
    """Twenty devices by two numbers of threads, 250 runs each; three files are not sound."""
    for index in range(10_000):
        report = make_report(
            samples(5 + index % 20, index, 100), device__name=f"device {index % 20:02}", settings__threads=1 + index // 20 % 2
        )
        (tmp_path / f"{index:05}.json").write_text(json.dumps(report))
    for name in ("x", "y", "z"):
        (tmp_path / f"{name}.json").write_text("{}")
    groups, left_out = load([tmp_path])
    assert [len(group.paths) for group in groups] == [250] * 40
    assert {(group.values["device"], group.values["threads"]) for group in groups} == {
        (f"device {device:02}", threads) for device in range(20) for threads in (1, 2)
    }
    assert all(abs(group.values["p50_ns"] / 1e6 / (5 + int(group.values["device"][-2:])) - 1) < 0.01 for group in groups)
    assert left_out[0].startswith("3 of 10003 files are not sound reports")
