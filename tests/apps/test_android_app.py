"""The Android classifier and app: compiled, tested on a JVM in ExecuTorch's own Android libraries, and packed into an APK.

One JVM is this machine's, the other an emulated arm64's. The code is run as it was written and as R8 shrinks it.

``LAVIT_EDGE_PTE=model.pte pytest tests/apps/test_android_app.py`` takes that artifact instead of a small one that is made here.
"""

from __future__ import annotations

import functools
import hashlib
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
from lavit_edge.checkpoint import bundled_checkpoints
from lavit_edge.contract import InputContract
from lavit_edge.contract.answers import decide, probabilities
from lavit_edge.export.__main__ import DEFAULT_CHECKPOINT

pytestmark = [pytest.mark.apps, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
ANDROID = ROOT / "apps" / "android"
JVM = Path(__file__).parent / "jvm"
DRIVER = JVM / "driver"
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
    apk_script.stand_ins(tools, folder)
    modules = apk_script.modules(tools, folder, generated)
    kotlin = [tools.kotlin / "lib" / f"{name}.jar" for name in ("kotlin-stdlib", "kotlin-test", "kotlin-test-junit")]
    junit = [debian_file("/usr/share/java/junit4.jar", "junit4"), debian_file("/usr/share/java/hamcrest.jar", "libhamcrest-java")]
    # Android's stubs come last: they have a JUnit of their own
    system = [folder / "fbjni.jar", folder / "android_newer.jar", tools.stubs]
    given = [*(module.jar for module in modules.values()), generated, *kotlin, *junit, tools.executorch, *system]
    sources = folder / "tests"
    sources.mkdir()
    for file in [*JVM.glob("kotlin/*.kt"), *UNIT_TESTS.rglob("*.kt")]:
        shutil.copy(file, sources)
    options = ["-jvm-target", "11", "-Werror", f"-Xfriend-paths={modules['app'].jar},{modules['classifier'].jar}"]
    tests = apk_script.Module(folder / "tests.jar", sources, given, options)
    needed = [modules["classifier"].jar, modules["core"].jar, tools.stubs]
    driver = apk_script.Module(folder / "driver.jar", DRIVER, needed, apk_script.OPTIONS)
    apk_script.compile_kotlin(tools.kotlin, folder, [*modules.values(), tests, driver])
    return folder, ":".join(map(str, [tests.jar, *given]))


@pytest.fixture(scope="module")
def jni(script: Callable[[str], Any], tools: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``jni("x86_64")``: a folder with ExecuTorch's library for Android, made loadable by that machine's JVM."""

    @functools.cache
    def make(abi: str) -> Path:
        folder = tmp_path_factory.mktemp("jni")
        script("android_jvm").libraries(tools.native(abi), abi, folder)
        return folder

    return make


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
    for known in (json.loads((artifact / "contract").read_text())["format"].partition(".")[2], "provenance/1", "golden/2"):
        old = f"lavit_edge.{known}".encode()
        write(f"newer_{known[:-2]}", replaced(old, old[:-1] + b"9"), f"expected an object with format 'lavit_edge.{known[:-1]}")
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
def output(java: str, work: tuple[Path, str], jni: Callable[[str], Path], artifact: Path, bad: Path) -> tuple[str, Path]:
    """What the tests on the JVM print, and the folder that they write to."""
    libraries = jni("x86_64")
    out = work[0] / "out"
    out.mkdir()
    paths = {"artifact": artifact, "bad": bad, "wrong": bad / "wrong", "out": out}
    given = [f"-Dlavit.{name}={path}" for name, path in paths.items()]
    names = [f"{re.findall(r'^package (.+)$', file.read_text(), re.MULTILINE)[0]}.{file.stem}" for file in TESTS]
    options = ["-ea", "-Xcheck:jni", f"-agentpath:{libraries / 'libc.so'}"]
    command = [java, *options, *given, "-cp", work[1], "org.junit.runner.JUnitCore", *names]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600, env=environment)
    assert done.returncode == 0, (done.stdout + done.stderr)[:6000]
    return done.stdout, out


@pytest.fixture(scope="module")
def bundled(make_pte: Callable[[Path, str], Path], read_by_python: Callable[[Path], Path]) -> Path:
    """The model that comes with the package, in int8, and what Python's ExecuTorch makes of its golden pictures."""
    return read_by_python(make_pte(bundled_checkpoints()[DEFAULT_CHECKPOINT], "int8"))


@pytest.fixture(scope="module")
def shrunk(work: tuple[Path, str], tools: Any, apk_script: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library with a small app, as R8 makes them for a release: a jar with all that it needs."""
    folder = tmp_path_factory.mktemp("shrunk")
    rules = folder / "app.pro"
    # Kotlin's strings use java.lang.invoke, of which a JVM has more than the stubs of Android 6
    rules.write_text("-keep class org.lavitedge.driver.DriverKt { *; }\n-dontwarn java.lang.invoke.**\n")
    jars = [work[0] / f"{name}.jar" for name in ("core", "classifier", "driver")]
    for name in ("fbjni.jar", "android_newer.jar"):
        shutil.copy(work[0] / name, folder)
    apk_script.shrink(tools, folder, jars, [rules], ["--classfile"], folder / "shrunk.jar")
    return folder / "shrunk.jar"


def check_driven(command: list[str], environment: dict[str, str], folder: Path, off: float) -> None:
    """Runs tests/apps/jvm/driver on the artifact in ``folder``: logits at most ``off`` from Python's, and its best answers."""
    command = [*command, "org.lavitedge.driver.DriverKt", str(folder / "model")]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600, env=environment)
    assert done.returncode == 0, (done.stdout + done.stderr)[:6000]
    assert "self-test: passed\n" in done.stdout
    logits = [np.array(words.split(), float) for words in re.findall(r"^logits: (.+)$", done.stdout, re.MULTILINE)]
    names = json.loads((folder / "facts.json").read_text())["names"]
    expected = [np.fromfile(folder / f"logits.{index}", "<f4") for index in range(len(names))]
    assert np.abs(np.array(logits) - np.array(expected)).max() <= off
    assert re.findall(r"^answer: (\d+)$", done.stdout, re.MULTILINE) == [str(found.argmax()) for found in logits]


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


def test_what_r8_leaves_runs_in_executorchs_own_library(
    java: str, shrunk: Path, jni: Callable[[str], Path], bundled: Path
) -> None:
    names = zipfile.ZipFile(shrunk).namelist()
    assert "com/facebook/jni/HybridData$Destructor.class" in names  # native code looks it up
    assert not [name for name in names if "LavitClassifier" in name]  # it has a shorter name now
    libraries = jni("x86_64")
    command = [java, "-Xcheck:jni", f"-agentpath:{libraries / 'libc.so'}", "-cp", str(shrunk)]
    check_driven(command, {"LD_LIBRARY_PATH": str(libraries)}, bundled, 1e-4)


def test_on_an_arm64_jvm(
    shrunk: Path, jni: Callable[[str], Path], bundled: Path, script: Callable[[str], Any], lack: Callable[[str], None]
) -> None:
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        lack("aarch64-linux-gnu-gcc is missing; on Debian: apt-get install g++-aarch64-linux-gnu")
    jvm = script("android_jvm")
    try:
        command, environment = jvm.emulated_java("cortex-a76", jni("arm64-v8a"))
    except jvm.debian.Unavailable as error:
        lack(str(error))
    facts = json.loads((bundled / "facts.json").read_text())
    check_driven([*command, "-cp", str(shrunk)], environment, bundled, min(facts["tolerances"]) * facts["step"])


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


def test_what_lies_in_the_apk(apk: Path, artifact: Path, tools: Any, apk_script: Any, work: tuple[Path, str]) -> None:
    apk_script.run("zipalign", "-c", "-p", "4", apk)
    with zipfile.ZipFile(apk) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        assert archive.read("assets/model.pte") == (artifact / "model").read_bytes()
        libraries = {f"lib/arm64-v8a/{name}": content for name, content in tools.native().items()}
        assert {name: archive.read(name) for name in entries if name.endswith(".so")} == libraries
    for name, multiple in (("assets/model.pte", 4), *((name, 16384) for name in libraries)):
        assert entries[name].compress_type == zipfile.ZIP_STORED
        header = apk.read_bytes()[entries[name].header_offset :][:30]
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        assert (entries[name].header_offset + 30 + name_length + extra_length) % multiple == 0
    assert apk_script.facts(apk) == [
        "native libraries: libexecutorch.so, libfbjni.so, libc++_shared.so",
        "missing native libraries: none",
        "Java of ours in place of Maven Central's: "
        "com.facebook.jni, com.facebook.jni.annotations, com.facebook.soloader.nativeloader",
        "not for phones with pages of 16 KB, where these cannot be loaded: libfbjni.so, libc++_shared.so",
    ]
    with zipfile.ZipFile(apk) as archive:
        less = work[0] / "less.apk"
        with zipfile.ZipFile(less, "w") as target:
            target.writestr("lib/arm64-v8a/libexecutorch.so", archive.read("lib/arm64-v8a/libexecutorch.so"))
    assert "missing native libraries: libfbjni.so" in apk_script.facts(less)


def test_the_shrunk_code_keeps_what_native_code_and_android_look_up(apk: Path, work: tuple[Path, str], apk_script: Any) -> None:
    code = apk_script.run("dexdump", apk)
    for name in (
        "org/lavitedge/app/MainActivity",
        "org/lavitedge/app/BenchmarkActivity",
        "org/pytorch/executorch/Module",
        "com/facebook/jni/HybridData$Destructor",
    ):
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


def test_ten_lines_from_an_empty_folder(java: str, tools: Any, jni: Callable[[str], Path], bundled: Path, tmp_path: Path) -> None:
    section = (ROOT / "docs" / "apps.md").read_text("utf-8").split("## Android")[1].split("\n## ")[0]
    (source,) = (code for code in re.findall(r"```kotlin\n(.*?)```", section, re.DOTALL) if "fun main" in code)
    (command,) = re.findall(r"```sh\n(kotlinc .*)\n```", section)
    assert len(source.splitlines()) + 1 == 10
    (tmp_path / "Main.kt").write_text(source)
    (tmp_path / "lavit-edge").symlink_to(ROOT)
    (tmp_path / "kotlinc").write_text(f'#!/bin/sh\nexec bash "{tools.kotlin}/bin/kotlinc" "$@"\n')
    (tmp_path / "kotlinc").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    shutil.copy(bundled / "model", tmp_path / "model.pte")
    libraries = jni("x86_64")
    classpath = f"app.jar:libs/fbjni.jar:{tools.executorch}:{tools.stdlib}:{tools.stubs}"
    run = [java, f"-agentpath:{libraries / 'libc.so'}", "-cp", classpath, "MainKt"]
    ran = subprocess.run(
        run, capture_output=True, text=True, cwd=tmp_path, env={**environment, "LD_LIBRARY_PATH": str(libraries)}
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    logits = np.fromfile(bundled / "logits.0", "<f4")
    contract = InputContract.from_json((bundled / "contract").read_text())
    index = decide(probabilities(logits, contract), contract.threshold)
    assert ran.stdout == ("not sure" if index is None else contract.labels[index]) + "\n"
