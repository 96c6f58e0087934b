"""The runner for iOS: a report that the app shared, and devicectl, played by a program of its name; never run on a Mac."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavit_edge.artifact.seal import UNSEALED, content_sha256, seal
from lavit_edge.benchmark.devices import BenchmarkConfig, measure
from lavit_edge.benchmark.report import Report, write_report
from lavit_edge.errors import UserError

Exported = Callable[..., tuple[Path, Report]]


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "model.mlpackage"
    (path / "Data").mkdir(parents=True)
    (path / "Data" / "model.mlmodel").write_text(UNSEALED)
    (path / "Manifest.json").write_text("{}")
    seal(path)
    return path


@pytest.fixture
def exported(artifact: Path, tmp_path: Path, make_report: Callable[..., Report]) -> Exported:
    """``exported(settings__threads=2)``: a report of the app's on the artifact, in a file."""

    def write(**changes: Any) -> tuple[Path, Report]:
        fitting = {"harness__name": "ios", "artifact__content_sha256": content_sha256(artifact), "settings__threads": None}
        report = make_report(**(fitting | changes))
        file = tmp_path / "shared.json"
        write_report(report, file)
        return file, report

    return write


def test_a_shared_report_is_taken(artifact: Path, exported: Exported) -> None:
    file, report = exported()
    assert measure(f"ios:{file}", artifact, BenchmarkConfig()) == [report]


def test_a_report_on_another_artifact_is_refused(artifact: Path, exported: Exported) -> None:
    file, _ = exported(artifact__content_sha256="0" * 64)
    with pytest.raises(UserError, match=r"is on another artifact \(0000000000000000\.\.\.\)"):
        measure(f"ios:{file}", artifact, BenchmarkConfig())
    file, _ = exported(artifact__content_sha256=None)
    with pytest.raises(UserError, match="is on another artifact"):
        measure(f"ios:{file}", artifact, BenchmarkConfig())


def test_an_edited_report_one_of_another_harness_and_what_is_none_are_refused(artifact: Path, exported: Exported) -> None:
    file, report = exported()
    file.write_text(json.dumps({**report, "notes": ["quicker than it was"]}))
    with pytest.raises(UserError, match="was edited"):
        measure(f"ios:{file}", artifact, BenchmarkConfig())
    file, _ = exported(harness__name="android")
    with pytest.raises(UserError, match="from the harness 'android'"):
        measure(f"ios:{file}", artifact, BenchmarkConfig())
    for text, message in (("{", "not JSON"), ("{}", "not a benchmark report"), (json.dumps({**report, "load": 1}), "load")):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            measure(f"ios:{file}", artifact, BenchmarkConfig())
    with pytest.raises(UserError, match="missing"):
        measure(f"ios:{file.with_name('missing.json')}", artifact, BenchmarkConfig())


def test_without_xcode_it_is_said_what_to_do_by_hand(artifact: Path, without_programs: Path) -> None:
    for device in ("ios", "ios:My phone"):
        with pytest.raises(UserError, match=r"Mac with Xcode.*share its JSON.*--device ios:REPORT\.json"):
            measure(device, artifact, BenchmarkConfig())
    with pytest.raises(UserError, match=r"an \.mlpackage or \.pte"):
        measure("ios", artifact.with_name("model.onnx"), BenchmarkConfig())


XCRUN = '''#!{python}
"""Plays xcrun devicectl: a folder is the app's container, and the app writes the report that it finds there."""
import json, pathlib, shutil, sys

device = pathlib.Path({device!r})
arguments = sys.argv[1:]
with (device / "calls").open("a") as log:
    log.write(json.dumps(arguments) + "\\n")
if "My phone" not in arguments:
    sys.exit("ERROR: The specified device was not found.\\nmore of it")


def value(name):
    return arguments[arguments.index(name) + 1]


if arguments[:4] == ["devicectl", "device", "copy", "to"]:
    assert value("--domain-type") == "appDataContainer" and value("--domain-identifier") == "org.lavitedge.app"
    there = device / value("--destination")
    there.parent.mkdir(parents=True)
    shutil.copytree(value("--source"), there)
elif arguments[:4] == ["devicectl", "device", "process", "launch"]:
    at = arguments.index("org.lavitedge.app")
    assert "--console" in arguments[:at] and "--device" in arguments[:at]
    assert (device / value("--benchmark") / "Manifest.json").exists()
    if (device / "report.json").exists():
        shutil.copy(device / "report.json", device / value("--report"))
elif arguments[:4] == ["devicectl", "device", "copy", "from"]:
    assert value("--domain-type") == "appDataContainer" and value("--domain-identifier") == "org.lavitedge.app"
    if not (device / value("--source")).exists():
        sys.exit("ERROR: no such file")
    shutil.copy(device / value("--source"), value("--destination"))
else:
    sys.exit("usage")
'''


@pytest.fixture
def device(tmp_path: Path, without_programs: Path) -> Path:
    folder = tmp_path / "device"
    folder.mkdir()
    program = without_programs / "xcrun"
    program.write_text(XCRUN.format(python=sys.executable, device=str(folder)))
    program.chmod(0o755)
    return folder


def test_devicectl_copies_runs_and_brings_the_report(artifact: Path, exported: Exported, device: Path) -> None:
    file, report = exported()
    file.rename(device / "report.json")
    two = BenchmarkConfig(threads=(1, 2), seconds=3.0)  # Core ML has its own threads
    assert measure("ios:My phone", artifact, two) == [report]
    calls = [json.loads(line) for line in (device / "calls").read_text().splitlines()]
    assert [call[1:4] for call in calls] == [
        ["device", "copy", "to"],
        ["device", "process", "launch"],
        ["device", "copy", "from"],
    ]
    assert all(call[call.index("--device") + 1] == "My phone" for call in calls)
    launched = calls[1][calls[1].index("org.lavitedge.app") :]
    assert launched[launched.index("--seconds") + 1] == "3.0"
    assert "--force" not in launched
    assert "--threads" not in launched


def test_what_devicectl_or_the_app_does_not_do_is_said(artifact: Path, exported: Exported, device: Path) -> None:
    with pytest.raises(UserError, match="which device"):
        measure("ios", artifact, BenchmarkConfig())
    with pytest.raises(
        UserError, match=r"device copy to failed: ERROR: The specified device was not found\.; is Yours connected"
    ):
        measure("ios:Yours", artifact, BenchmarkConfig())
    with pytest.raises(UserError, match="device copy from failed: ERROR: no such file"):
        measure("ios:My phone", artifact, BenchmarkConfig())
    file, _ = exported(artifact__content_sha256="0" * 64)
    file.rename(device / "report.json")
    with pytest.raises(UserError, match="is on another artifact"):
        measure("ios:My phone", artifact, BenchmarkConfig())
