"""The runner in headless Chromium: what it reports, and the one line that it says when it cannot."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import open_artifact, read_entries
from lavit_edge.artifact.seal import FIELD, MARK, check_seal
from lavit_edge.benchmark import browser, onnxruntime_web
from lavit_edge.benchmark.devices import BenchmarkConfig, measure
from lavit_edge.benchmark.report import edited, read_report, write_report
from lavit_edge.contract.pictures import to_input
from lavit_edge.errors import UserError
from lavit_edge.selftest import steps_off

SHORT = BenchmarkConfig(seconds=0.1)


@pytest.fixture(scope="session")
def chromium() -> None:
    """Chromium and ONNX Runtime Web are here, or the test skips; in CI it fails."""
    try:
        browser.find_chromium()
        onnxruntime_web.fetch()
    except UserError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def nothing_left(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> object:
    """After each test no browser that it started is running, and no folder of one is left."""
    folder = tmp_path_factory.mktemp("tmp")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    for _ in range(100):  # Chromium's crash handlers are not its children; they leave when it is gone
        running = [line for line in _commands() if str(folder) in line]
        if not running:
            break
        time.sleep(0.1)
    assert not running
    assert not list(folder.iterdir())


def _commands() -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue
    return found


def program(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.write_text(text)
    file.chmod(0o755)


@pytest.mark.slow
@pytest.mark.device
def test_a_report_for_each_number_of_threads(tiny_onnx: Path, chromium: None, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    settings = BenchmarkConfig(threads=(1, 2), seconds=0.6)
    reports = measure("browser", tiny_onnx, settings, lambda what, share: told.append((what, share)))
    assert [report["settings"]["threads"] for report in reports] == [1, 2]
    payload = read_payload(read_entries(tiny_onnx))
    run = open_artifact(tiny_onnx, threads=1)
    steps = max(
        float(steps_off(golden, run(to_input(golden.image(), payload.contract)), payload).max()) for golden in payload.golden
    )
    for index, report in enumerate(reports):
        write_report(report, tmp_path / f"{index}.json")
        assert read_report(tmp_path / f"{index}.json") == report
        assert not edited(report)
        assert report["harness"]["name"] == "web"
        assert (report["device"]["arch"], report["device"]["emulated"]) == ("wasm32", False)
        assert "wasm_simd" in report["device"]["cpu_features"]
        assert (report["runtime"]["name"], report["runtime"]["version"]) == ("ONNX Runtime Web", "1.30.0")
        artifact = report["artifact"]
        assert artifact["file"] == tiny_onnx.name
        assert artifact["bytes"] == tiny_onnx.stat().st_size
        assert artifact["sha256"] == hashlib.sha256(tiny_onnx.read_bytes()).hexdigest()
        assert artifact["content_sha256"] == check_seal(tiny_onnx)
        assert artifact["contract_sha256"] == payload.contract.sha256
        assert (artifact["precision"], artifact["image_size"], artifact["model"]) == ("float32", 64, "tiny")
        tested = report["self_test"]
        assert (tested["passed"], tested["pictures"], tested["same_top1"], tested["forced"]) == (True, 4, 4, False)
        assert tested["worst_millisteps"] <= 1000 * steps + 50
        assert report["latency"]["runs"] >= 50
        assert report["latency"]["duration_ns"] >= 600_000_000
        assert report["least_duration_met"]
        assert report["settings"]["warmup"]["runs"] >= 3
        assert report["settings"]["warmup"]["duration_ns"] >= 1_000_000_000
        assert report["load"]["cold_ns"] > 0
        assert report["preprocessing"]["frame"] == "640x480 RGBA"
        assert report["memory"]["peak_bytes"] >= 16 << 20
        assert any("Chrom" in note for note in report["notes"])
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert {"loading", "self-test"} <= {what for what, _ in told}


@pytest.mark.slow
@pytest.mark.device
def test_a_model_that_answers_otherwise_is_not_timed_unless_forced(
    tiny_onnx: Path, resealed_onnx: Callable[..., Path], chromium: None
) -> None:
    payload = read_payload(read_entries(tiny_onnx))
    first, *others = payload.golden
    changed = replace(payload, golden=(replace(first, logits=first.logits[::-1].copy()), *others))
    path = resealed_onnx(golden=changed.metadata()["org.lavit_edge.golden"])
    (report,) = measure("browser", path, SHORT)
    assert report["latency"] is None
    assert not report["least_duration_met"]
    assert not report["self_test"]["passed"]
    assert not report["self_test"]["forced"]
    assert report["self_test"]["detail"].startswith(f"{first.name}: logits: at most ")
    (report,) = measure("browser", path, BenchmarkConfig(seconds=0.1, force=True))
    assert report["latency"]["runs"] >= 50
    assert (report["self_test"]["passed"], report["self_test"]["forced"]) == (False, True)


@pytest.mark.slow
@pytest.mark.device
def test_a_damaged_artifact_is_refused_before_the_runtime_sees_it(tiny_onnx: Path, chromium: None, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    whole = tiny_onnx.read_bytes()
    other = FIELD.sub(MARK + b"1" * 64, whole)
    for changed in (whole[:1000], other):
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"model\.onnx: (has no digest|is not what was exported).*nothing was measured"):
            measure("browser", path, SHORT)
    (report,) = measure("browser", path, BenchmarkConfig(seconds=0.1, force=True))
    assert "is not what was exported" in report["self_test"]["detail"]
    assert report["self_test"]["forced"]
    assert report["latency"]["runs"] >= 50


@pytest.mark.slow
@pytest.mark.device
def test_a_page_that_is_not_isolated_has_one_thread_and_says_so(
    tiny_onnx: Path, chromium: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "ISOLATION", ())
    (report,) = measure("browser", tiny_onnx, BenchmarkConfig(threads=(2,), seconds=0.1))
    assert report["settings"]["threads"] == 1
    assert any("2 threads were asked for" in note for note in report["notes"])


@pytest.mark.slow
@pytest.mark.device
@pytest.mark.parametrize(
    ("page", "said"),
    [
        (browser.PAGE.replace("headless.js", "missing.js"), "cannot load .*/lib/missing.js"),
        ("<script>throw new Error('on purpose')</script>", None),
        (browser.PAGE + "<script>throw new Error('on purpose')</script>", "on purpose"),
        (browser.PAGE.replace(' src="lib/headless.js">', ">import './lib/report.js'; nothing();"), "nothing is not defined"),
    ],
)
def test_what_fails_in_the_page_is_said(
    page: str, said: str | None, tiny_onnx: Path, chromium: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "PAGE", page)
    if said is None:  # a page that cannot speak
        monkeypatch.setattr(browser, "QUIET", 3.0)
        with pytest.raises(UserError, match="out of time: the page in Chromium was silent for 3 s"):
            measure("browser", tiny_onnx, SHORT)
    else:
        with pytest.raises(UserError, match=f"the page failed in Chromium: .*{said}"):
            measure("browser", tiny_onnx, SHORT)


def test_without_a_browser_it_is_said_which_were_looked_for(tiny_onnx: Path, without_programs: Path) -> None:
    with pytest.raises(UserError, match=r"chromium, chromium-browser, google-chrome.*apt-get install chromium"):
        measure("browser", tiny_onnx, SHORT)


def test_a_browser_that_dies_or_stays_silent(tiny_onnx: Path, without_programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_web, "fetch", lambda: without_programs)
    program(
        without_programs,
        "chromium",
        "#!/bin/sh\necho '[1:2:ERROR:x] noise' >&2\necho '[1:FATAL:x] boom' >&2\necho y >&2\nexit 3\n",
    )
    with pytest.raises(UserError, match=r"Chromium ended with code 3: .*boom"):
        measure("browser", tiny_onnx, SHORT)
    # two processes, as Chromium has several, that do not mind being asked to end; the profile is in their command lines
    sleeper = f"""{sys.executable} -c 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)' "$@" """
    program(without_programs, "chromium", f"#!/bin/sh\n{sleeper} &\nexec {sleeper}\n")
    monkeypatch.setattr(browser, "QUIET", 1.0)
    with pytest.raises(UserError, match="out of time: the page in Chromium was silent for 1 s"):
        measure("browser", tiny_onnx, SHORT)


@pytest.mark.parametrize("name", ["model.ort", "model.pte", "model.mlpackage", "missing.onnx"])
def test_other_artifacts_are_refused(name: str, tmp_path: Path) -> None:
    if name != "missing.onnx":
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"runs an \.onnx only|does not exist"):
        measure("browser", tmp_path / name, SHORT)


def test_an_address_is_refused(tiny_onnx: Path) -> None:
    with pytest.raises(UserError, match="takes no address"):
        measure("browser:here", tiny_onnx, SHORT)


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lavit-edge-web"


def test_without_npm_or_with_one_that_fails(no_cache: Path, without_programs: Path) -> None:
    with pytest.raises(UserError, match=r"onnxruntime-web 1\.30\.0 comes from npm, and there is no npm"):
        onnxruntime_web.fetch()
    program(without_programs, "npm", "#!/bin/sh\necho 'npm error no network' >&2\nexit 1\n")
    with pytest.raises(UserError, match=r"npm cannot bring onnxruntime-web@1\.30\.0: npm error no network"):
        onnxruntime_web.fetch()
    assert not list(no_cache.iterdir())


def test_only_the_pinned_package_is_taken_and_once(
    no_cache: Path, without_programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = json.loads((onnxruntime_web.web_folder() / onnxruntime_web.PIN).read_text())
    source = tmp_path / "package"
    (source / "dist").mkdir(parents=True)
    for name in [*pin["files"], "another.js"]:
        (source / "dist" / name).write_text(name)
    with tarfile.open(tmp_path / "made.tgz", "w:gz") as archive:
        archive.add(source, "package")
    copy = shutil.which("cp", path=os.defpath)
    expected = "pack onnxruntime-web@1.30.0 --pack-destination"
    text = f'#!/bin/sh\n[ "$1 $2 $3" = "{expected}" ] || exit 9\n{copy} {tmp_path}/made.tgz "$4"\n'
    program(without_programs, "npm", text)
    with pytest.raises(UserError, match=r"has SHA-256 .* is pinned; it is not used"):
        onnxruntime_web.fetch()
    assert not list(no_cache.iterdir())
    web = tmp_path / "web"
    web.mkdir()
    pin["sha256"] = hashlib.sha256((tmp_path / "made.tgz").read_bytes()).hexdigest()
    (web / onnxruntime_web.PIN).write_text(json.dumps(pin))
    monkeypatch.setattr(onnxruntime_web, "web_folder", lambda: web)
    folder = onnxruntime_web.fetch()
    assert {file.name: file.read_text() for file in folder.iterdir()} == {name: name for name in pin["files"]}
    (without_programs / "npm").unlink()
    assert onnxruntime_web.fetch() == folder
    assert list(no_cache.iterdir()) == [folder]
