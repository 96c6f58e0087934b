"""The Kotlin of apps/android/core: compiled without a warning, linted, and its tests run on the JVM on files made here."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lavit_edge.benchmark import report as reports
from lavit_edge.contract import InputContract
from lavit_edge.contract.frames import to_rgb
from lavit_edge.contract.pictures import to_input

pytestmark = [pytest.mark.apps, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
CORE = ROOT / "apps" / "android" / "core"
TESTS = sorted((CORE / "src" / "test" / "kotlin").rglob("*Test.kt"))
# what the Android build targets, too: no class of a newer Java than 11 is seen, and nothing is warned of
OPTIONS = ["-jvm-target", "11", "-Xjdk-release=11", "-Werror", "-progressive"]
REPORTS = ["whole", "silent", "failed", "forced"]


def run(command: list[object]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace", timeout=1200)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def classpath(
    java: str,
    tool: Callable[[str], Path],
    script: Callable[[str], Any],
    debian_file: Callable[[str, str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The compiled library and its tests, with what they need."""
    build, kotlin = script("android_apk"), tool("kotlin-compiler")
    junit = [debian_file("/usr/share/java/junit4.jar", "junit4"), debian_file("/usr/share/java/hamcrest.jar", "libhamcrest-java")]
    folder = tmp_path_factory.mktemp("kotlin")
    core, tests = folder / "core.jar", folder / "tests.jar"
    libraries = [kotlin / "lib" / f"{name}.jar" for name in ("kotlin-stdlib", "kotlin-test", "kotlin-test-junit")]
    given = [core, *libraries, *junit]
    modules = [
        build.Module(core, CORE / "src" / "main" / "kotlin", [], OPTIONS),
        build.Module(tests, CORE / "src" / "test" / "kotlin", given, [*OPTIONS, f"-Xfriend-paths={core}"]),
    ]
    build.compile_kotlin(kotlin, folder, modules)
    return ":".join(map(str, [*given, tests]))


@pytest.fixture(scope="module")
def artifact(tiny_pte: Path, read_by_python: Callable[[Path], Path]) -> Path:
    """A folder with a real ``.pte``, its payload, and what Python makes of its golden pictures."""
    return read_by_python(tiny_pte)


@pytest.fixture(scope="module")
def other_frames(script: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As tests/golden, with noise of more sizes: a camera's, and extreme ones."""
    golden, folder, listed = script("make_golden"), tmp_path_factory.mktemp("frames"), []
    rng = np.random.default_rng(0)
    sizes = [(640, 480), (1, 1), (2, 1), (1, 50), (3, 200), (1000, 67), (160, 160), (161, 159)]
    forms = ["yuv_420_888", "nv21", "bgra", "rgba"]
    contracts = [
        InputContract(160, ("a",)),
        InputContract(224, ("a",), resize="crop", crop_fraction=0.875),
        InputContract(32, ("a",), interpolation="bilinear"),
    ]
    for index, ((width, height), contract) in enumerate(itertools.product(sizes, contracts)):
        picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        frame = golden.frame_of(picture, forms[index % 4], 90 * (index // 4 % 4), bool(index // 3 % 2))
        facts = {key: getattr(frame, key) for key in ("format", "width", "height", "rotation", "mirrored")}
        offsets = [0, *itertools.accumulate(len(plane.data) for plane in frame.planes)]
        facts["planes"] = [
            {"offset": offset, "length": len(plane.data), "row_stride": plane.row_stride, "pixel_stride": plane.pixel_stride}
            for offset, plane in zip(offsets, frame.planes, strict=False)
        ]
        facts |= {"name": str(index), "contract": contract.to_dict()}
        (folder / f"{index}.frame").write_bytes(b"".join(plane.data for plane in frame.planes))
        (folder / f"{index}.input").write_bytes(to_input(Image.fromarray(to_rgb(frame)), contract).tobytes())
        listed.append(facts)
    (folder / "frames.json").write_text(json.dumps(listed))
    return folder


@pytest.fixture(scope="module")
def output(
    java: str, classpath: str, artifact: Path, other_frames: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """What the Kotlin tests print, and the folder that they write reports to."""
    out = tmp_path_factory.mktemp("reports")
    schema = ROOT / "lavit_edge" / "benchmark" / "report.schema.json"
    paths = {"golden": ROOT / "tests" / "golden", "frames": other_frames, "artifact": artifact, "schema": schema, "out": out}
    names = [f"org.lavitedge.core.{file.stem}" for file in TESTS]
    given = [f"-Dlavit.{name}={path}" for name, path in paths.items()]
    return run([java, "-ea", *given, "-cp", classpath, "org.junit.runner.JUnitCore", *names]), out


def test_kotlins_own_tests_pass_on_the_jvm(output: tuple[str, Path]) -> None:
    written = sum(len(re.findall(r"^ +@Test$", file.read_text("utf-8"), re.MULTILINE)) for file in TESTS)
    assert written > 30
    assert f"OK ({written} tests)" in output[0]
    assert "golden frames: 32, at most 0 of 255 off" in output[0]


def test_another_model_changes_no_line(
    java: str,
    classpath: str,
    other_checkpoint: Path,
    artifact: Path,
    make_pte: Callable[[Path, str], Path],
    read_by_python: Callable[[Path], Path],
) -> None:
    """The same classes, compiled once, on a model with other labels, size, resize, filter and precision."""
    other = read_by_python(make_pte(other_checkpoint, "int8"))
    contracts = [json.loads((folder / "contract").read_text("utf-8")) for folder in (artifact, other)]
    assert all(contracts[0][name] != contracts[1][name] for name in ("labels", "size", "resize", "interpolation"))
    output = run(
        [
            java,
            "-ea",
            f"-Dlavit.artifact={other}",
            f"-Dlavit.golden={ROOT / 'tests' / 'golden'}",
            "-cp",
            classpath,
            "org.junit.runner.JUnitCore",
        ]
        + [f"org.lavitedge.core.{name}" for name in ("PayloadTest", "SelfTestTest")]
    )
    assert "OK (" in output


@pytest.mark.parametrize("name", REPORTS)
def test_python_reads_the_reports_that_kotlin_writes(output: tuple[str, Path], artifact: Path, name: str) -> None:
    path = output[1] / f"{name}.json"
    report = reports.read_report(path)
    assert not reports.edited(report)
    assert reports.canonical(report) == path.read_bytes()
    assert report["harness"]["name"] == "android"
    assert report["artifact"]["sha256"] == hashlib.sha256((artifact / "model").read_bytes()).hexdigest()
    assert report["artifact"]["contract_sha256"] == (artifact / "contract.sha256").read_text()
    assert report["artifact"]["precision"] == "float32"


def test_no_call_that_android_8_lacks(classpath: str, java: str) -> None:
    """``ByteBuffer.flip()`` and its like give a ``ByteBuffer`` since Java 9; before Android 9 there is only ``Buffer``'s own."""
    core = classpath.split(":")[0]
    classes = [name.removesuffix(".class") for name in zipfile.ZipFile(core).namelist() if name.endswith(".class")]
    code = run([Path(java).resolve().with_name("javap"), "-c", "-p", "-cp", core, *classes])
    assert "java/nio/ByteBuffer.duplicate:" in code
    own = r"java/nio/\w+Buffer\.(?:clear|flip|limit|mark|position|reset|rewind):\(I?\)Ljava/nio/(?!Buffer;)\w+"
    assert re.findall(own, code) == []


def test_ktlint_finds_nothing(java: str, tool: Callable[[str], Path]) -> None:
    files = [str(file) for pattern in ("*.kt", "*.kts") for file in (ROOT / "apps" / "android").rglob(pattern)]
    assert len(files) > 20
    ktlint = tool("ktlint") / "resources" / "ktlint"
    done = subprocess.run([java, "-jar", str(ktlint), *files], capture_output=True, text=True, cwd=ROOT / "apps" / "android")
    assert done.returncode == 0, done.stdout[-4000:]
