"""The Android classifier and app: compiled, tested on the JVM on a real ``.pte``, and packed into an APK that is inspected.

``LAVIT_EDGE_PTE=model.pte pytest tests/apps/test_android_app.py`` takes that artifact instead of a small one that is made here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import lavit_edge
from lavit_edge.artifact.seal import UNSEALED, seal
from lavit_edge.benchmark import adb_app
from lavit_edge.benchmark import report as reports
from lavit_edge.benchmark.devices import BenchmarkConfig
from lavit_edge.contract import InputContract

pytestmark = [pytest.mark.apps, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
ANDROID = ROOT / "apps" / "android"
JVM = Path(__file__).parent / "jvm"
UNIT_TESTS = ANDROID / "app" / "src" / "test" / "kotlin"
TESTS = sorted([*JVM.rglob("*Test.kt"), *UNIT_TESTS.rglob("*Test.kt")])
PROGRAMS = {"javac": "openjdk-17-jdk-headless", "aapt2": "aapt", "zipalign": "zipalign", "apksigner": "apksigner", "g++": "g++"}


@pytest.fixture(scope="module")
def apk_script(script: Callable[[str], Any]) -> Any:
    return script("android_apk")


@pytest.fixture(scope="module")
def tools(java: str, tool: Callable[[str], Path], apk_script: Any, lack: Callable[[str], None]) -> Any:
    for program, package in {**PROGRAMS, "dexdump": "dexdump", "readelf": "binutils"}.items():
        if shutil.which(program) is None:
            lack(f"{program} is missing; on Debian: apt-get install {package}")
    return apk_script.Tools(tool)


@pytest.fixture(scope="module")
def work(
    tools: Any, apk_script: Any, debian_file: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A folder with all that is compiled, and the class path of the JVM's tests."""
    folder = tmp_path_factory.mktemp("android")
    generated = apk_script.resources(tools, folder)
    modules = apk_script.modules(tools, folder, generated)
    kotlin = [tools.kotlin / "lib" / f"{name}.jar" for name in ("kotlin-stdlib", "kotlin-test", "kotlin-test-junit")]
    junit = [debian_file("/usr/share/java/junit4.jar", "junit4"), debian_file("/usr/share/java/hamcrest.jar", "libhamcrest-java")]
    # Android's stubs come last: they have a JUnit of their own
    given = [*(module.jar for module in modules.values()), generated, *kotlin, *junit, tools.executorch, tools.stubs]
    sources = folder / "tests"
    sources.mkdir()
    for file in [*JVM.rglob("*.kt"), *UNIT_TESTS.rglob("*.kt")]:
        shutil.copy(file, sources)
    options = ["-jvm-target", "11", "-Werror", f"-Xfriend-paths={modules['app'].jar},{modules['classifier'].jar}"]
    tests = apk_script.Module(folder / "tests.jar", sources, given, options)
    apk_script.compile_kotlin(tools.kotlin, folder, [*modules.values(), tests])
    stand_ins = folder / "stand-ins"
    apk_script.run("javac", "--release", "11", "-Xlint:all,-options", "-d", stand_ins, *JVM.rglob("*.java"))
    return folder, ":".join(map(str, [tests.jar, stand_ins, *given]))


@pytest.fixture(scope="module")
def library(apk_script: Any, tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for ExecuTorch's JNI layer, on the C++ libraries of its wheel."""
    spec = importlib.util.find_spec("executorch")
    assert spec is not None
    assert spec.submodule_search_locations
    wheel = Path(next(iter(spec.submodule_search_locations)))
    jdk = Path(shutil.which("javac") or "").resolve().parents[1]
    made = tmp_path_factory.mktemp("jni") / "libexecutorch.so"
    include = [
        wheel / "include",
        wheel / "include/executorch/runtime/core/portable_type/c10",
        jdk / "include",
        jdk / "include/linux",
    ]
    options = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    options += ["-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED", "-DET_USE_THREADPOOL"]
    parts = ["", "_threadpool", "_kernels_optimized", "_kernels_quantized", "_backend_xnnpack"]
    link = [f"-L{wheel / 'lib'}", f"-Wl,-rpath,{wheel / 'lib'}", "-Wl,--no-as-needed", *(f"-lexecutorch{part}" for part in parts)]
    headers = [word for path in include for word in ("-isystem", path)]
    apk_script.run("g++", *options, *headers, JVM / "executorch_jni.cpp", "-o", made, *link)
    return made


@pytest.fixture(scope="module")
def artifact(request: pytest.FixtureRequest, read_by_python: Callable[[Path], Path]) -> Path:
    given = os.environ.get("LAVIT_EDGE_PTE")
    return read_by_python(Path(given) if given else request.getfixturevalue("tiny_pte"))


@pytest.fixture(scope="module")
def bad(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts that cannot be used, and ``bad.json``: of each, words of the line that must be said of it."""
    folder, model = tmp_path_factory.mktemp("bad"), (artifact / "model").read_bytes()
    contract = InputContract.from_json((artifact / "contract").read_text())
    before, last = (json.dumps(label, ensure_ascii=False)[1:-1].encode() for label in contract.labels[-2:])
    said = {}

    def write(name: str, content: bytes, words: str, sealed: bool = True) -> None:
        (folder / f"{name}.pte").write_bytes(content)
        if sealed:
            seal(folder / f"{name}.pte")
        said[f"{name}.pte"] = words

    def replaced(old: bytes, new: bytes) -> bytes:
        assert model.count(old) == 1
        assert len(old) == len(new)
        return model.replace(old, new)

    relabelled = replaced(b'"' + last + b'"', b'"' + last[:-1] + b'?"')
    write("other_contract", relabelled, "is not what was exported: its bytes have SHA-256", sealed=False)
    flipped = bytearray(model)
    flipped[len(model) // 2] ^= 1
    write("flipped", bytes(flipped), "is not what was exported", sealed=False)
    write("cut", model[: len(model) // 2], "cut.pte", sealed=False)
    write("empty", b"", "has no digest", sealed=False)
    write("text", b"not a program " * 9 + UNSEALED.encode(), "is not a program that this app's ExecuTorch can load")
    write("newer_program", replaced(b"ET12", b"ET99"), "is not a program that this app's ExecuTorch can load")
    write("no_golden", replaced(b"golden\0", b"goldem\0"), "entry 'golden' is missing")
    write("no_contract", replaced(b"contract\0", b"contrast\0"), "carries no contract")
    for known in ("contract/1", "provenance/1", "golden/2"):
        old = f"lavit_edge.{known}".encode()
        write(f"newer_{known[:-2]}", replaced(old, old[:-1] + b"9"), f"expected an object with format 'lavit_edge.{known}'")
    size = f'"size":{contract.size}'.encode()
    write("other_size", replaced(size, size[:-2] + (b"96" if size[-2:] != b"96" else b"64")), "fails when it runs")
    fewer = replaced(b'"' + before + b'","' + last + b'"', b'"' + before + b",__" + last + b'"')
    write("fewer_labels", fewer, "golden logits 0 is missing or of another type or shape")
    said["missing.pte"] = "missing.pte is not there"
    expected = np.frombuffer((artifact / "expected.0").read_bytes(), "<f4").copy()
    old = expected.tobytes()
    expected[0] += 1000 * float(np.ptp(expected))
    (folder / "wrong").write_bytes(replaced(old, expected.tobytes()))
    seal(folder / "wrong")
    (folder / "bad.json").write_text(json.dumps(said))
    return folder


@pytest.fixture(scope="module")
def output(java: str, work: tuple[Path, str], library: Path, artifact: Path, bad: Path) -> tuple[str, Path]:
    """What the tests on the JVM print, and the folder that they write to."""
    out = work[0] / "out"
    out.mkdir()
    paths = {"artifact": artifact, "bad": bad, "wrong": bad / "wrong", "out": out, "library.executorch": library}
    given = [f"-Dlavit.{name}={path}" for name, path in paths.items()]
    names = [f"{re.findall(r'^package (.+)$', file.read_text(), re.MULTILINE)[0]}.{file.stem}" for file in TESTS]
    command = [java, "-ea", *given, "-cp", work[1], "org.junit.runner.JUnitCore", *names]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[:6000]
    return done.stdout, out


@pytest.fixture(scope="module")
def apk(apk_script: Any, tools: Any, work: tuple[Path, str], artifact: Path) -> Path:
    out = work[0] / "apk" / "lavit.apk"
    apk_script.package(tools, work[0], artifact / "model", out)
    return out


def test_the_apps_own_tests_pass_on_the_jvm(output: tuple[str, Path]) -> None:
    written = sum(len(re.findall(r"^ +@Test$", file.read_text("utf-8"), re.MULTILINE)) for file in TESTS)
    assert written > 25
    assert f"OK ({written} tests)" in output[0]
    assert output[0].count("golden picture ") == 4


def test_python_reads_the_report_and_the_error_that_the_app_writes(output: tuple[str, Path], artifact: Path) -> None:
    path = output[1] / "benchmark.json"
    report = reports.read_report(path)
    assert not reports.edited(report)
    assert report["artifact"]["sha256"] == hashlib.sha256((artifact / "model").read_bytes()).hexdigest()
    assert report["artifact"]["contract_sha256"] == (artifact / "contract.sha256").read_text()
    assert report["self_test"]["passed"]
    assert report["settings"]["threads"] == 2
    assert report["runtime"]["backend"] == "XNNPACK"
    error = (output[1] / "interrupted.json").read_text()
    assert error == '{"error":"the app was sent to the background"}'
    assert error.startswith('{"error"')  # by which adb_app tells it from a report


def test_the_apk_is_signed_and_says_what_it_is(apk: Path, apk_script: Any) -> None:
    verified = apk_script.run("apksigner", "verify", "-v", "--min-sdk-version", "26", apk)
    assert "Verified using v2 scheme (APK Signature Scheme v2): true" in verified
    assert "Verified using v3 scheme (APK Signature Scheme v3): true" in verified
    badging = apk_script.run("aapt2", "dump", "badging", apk)
    assert f"package: name='{adb_app.PACKAGE}' versionCode='1' versionName='{lavit_edge.__version__}'" in badging
    assert re.findall(r"^(?:sdk|targetSdk)Version:'(\d+)'", badging, re.MULTILINE) == ["26", "35"]
    assert re.findall(r"^uses-permission: name='(.+?)'", badging, re.MULTILINE) == ["android.permission.CAMERA"]
    assert f"launchable-activity: name='{adb_app.PACKAGE}.MainActivity'" in badging
    assert "uses-feature-not-required: name='android.hardware.camera'" in badging
    assert "native-code: 'arm64-v8a'" in badging


def test_what_lies_in_the_apk(apk: Path, artifact: Path, tools: Any, apk_script: Any) -> None:
    apk_script.run("zipalign", "-c", "-p", "4", apk)
    with zipfile.ZipFile(apk) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        assert archive.read("assets/model.pte") == (artifact / "model").read_bytes()
        assert archive.read("lib/arm64-v8a/libexecutorch.so") == tools.library.read_bytes()
    for name, multiple in (("assets/model.pte", 4), ("lib/arm64-v8a/libexecutorch.so", 16384)):
        assert entries[name].compress_type == zipfile.ZIP_STORED
        header = apk.read_bytes()[entries[name].header_offset :][:30]
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        assert (entries[name].header_offset + 30 + name_length + extra_length) % multiple == 0
    segments = apk_script.run("readelf", "-lW", tools.library)
    assert {line.split()[-1] for line in segments.splitlines() if " LOAD " in line} == {"0x4000"}


def test_the_shrunk_code_keeps_what_native_code_and_android_look_up(apk: Path, work: tuple[Path, str], apk_script: Any) -> None:
    code = apk_script.run("dexdump", apk)
    for name in ("org/lavitedge/app/MainActivity", "org/lavitedge/app/BenchmarkActivity", "org/pytorch/executorch/Module"):
        assert f"Class descriptor  : 'L{name};'" in code
    for method in ("initHybrid", "executeNative", "nativeNewTensor", "getRawDataBuffer"):
        assert f"name          : '{method}'" in code
    mapping = (work[0] / "mapping.txt").read_text()
    for name in (
        "classifier.LavitClassifier",
        "classifier.ExecuTorchModel",
        "core.FrameConverter",
        "app.CameraState",
        "app.Camera",
    ):
        assert f"\norg.lavitedge.{name} -> " in mapping


def test_the_runner_over_adb_and_the_app_agree(apk: Path, apk_script: Any) -> None:
    commands: list[str] = []
    device = SimpleNamespace(name="x", run=lambda line: commands.append(line) or SimpleNamespace(code=0, text="", error=""))
    adb_app._start(device, Path("model.pte"), 2, BenchmarkConfig(threads=(2,), seconds=3, force=True))  # type: ignore[arg-type]
    sent = set(re.findall(r"--(e[siz]) (\w+)", commands[0]))
    source = (ANDROID / "app/src/main/kotlin/org/lavitedge/app/BenchmarkActivity.kt").read_text()
    kinds = {"String": "es", "Int": "ei", "Boolean": "ez"}
    assert sent == {(kinds[kind], name) for kind, name in re.findall(r'get(String|Int|Boolean)Extra\("(\w+)"', source)}
    assert "getExternalFilesDir(null)" in source
    assert f"/sdcard/Android/data/{adb_app.PACKAGE}/files" == adb_app.FILES
    assert f'"{Path(adb_app.REPORT).name}"' in source
    tree = apk_script.run("aapt2", "dump", "xmltree", apk, "--file", "AndroidManifest.xml")
    activity = next(part for part in tree.split("E: activity") if '".BenchmarkActivity"' in part)
    assert re.search(r"exported\(.*\)=true", activity)
    assert '"android.permission.DUMP"' in activity  # adb's shell has it, other apps have not
    process = re.search(r'process\(.*\)="(.+?)"', activity)
    assert process
    assert adb_app.PACKAGE + process[1] == adb_app.PROCESS


def test_versions_are_those_of_the_project() -> None:
    versions = (ANDROID / "gradle" / "libs.versions.toml").read_text()
    pins = json.loads((ROOT / "apps" / "versions.json").read_text())
    assert f'lavit-edge = "{lavit_edge.__version__}"' in versions
    assert f'kotlin = "{pins["kotlin-compiler"]["version"]}"' in versions


def test_nothing_of_a_model_is_in_the_code(artifact: Path) -> None:
    """Labels, sizes, means: they are the artifact's, so that another model changes no line."""
    bundled = [file.parent / "config.json" for file in sorted((ROOT / "lavit_edge" / "checkpoints").glob("*/model.safetensors"))]
    assert bundled
    words = [r"\b(?:160|192|224|256)\b", r"0\.485|0\.229"]
    for config in bundled:
        words += [rf'"{re.escape(label)}' for label in json.loads(config.read_text())["contract"]["labels"]]
    for module in ("classifier", "app"):
        for file in (ANDROID / module / "src" / "main").rglob("*.kt"):
            assert re.findall("|".join(words), file.read_text()) == []


def test_a_model_that_does_not_exist(apk_script: Any, tmp_path: Path) -> None:
    command = ["python", ROOT / "scripts" / "android_apk.py", tmp_path / "model.pte", "--out", tmp_path / "lavit.apk"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path / 'model.pte'} does not exist\n")
    assert list(tmp_path.iterdir()) == []
