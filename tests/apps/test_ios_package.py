"""The Swift package of apps/ios: built without a warning, linted, and its tests run on Linux on files made here."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavit_edge.artifact.mlprogram import specification, user_metadata
from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import open_artifact, read_entries
from lavit_edge.benchmark import facts
from lavit_edge.benchmark import report as reports
from lavit_edge.contract.pictures import to_input
from lavit_edge.selftest import check_golden, steps_off

from .conftest import lacking

pytestmark = [pytest.mark.apps, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
PACKAGE = "apps/ios/LavitEdge"
TESTS = sorted((ROOT / PACKAGE / "Tests").rglob("*Tests.swift"))

Swift = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is ``/build`` for Swift."""
    return tmp_path_factory.mktemp("swift")


@pytest.fixture(scope="module")
def swift(build: Path, script: Callable[[str], Any]) -> Swift:
    """Runs a command of the toolchain in the checkout."""
    toolchain = script("swift_toolchain")
    try:
        root = toolchain.prepare()
    except toolchain.Unavailable as error:
        lacking(str(error))

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        command = toolchain.command(root, build, argv)
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=1800)

    return run


def handed_over(checkpoint: Path, precision: str, folder: Path) -> dict[str, Any]:
    """What Python reads in a real ``.mlpackage``, of which Swift gets the metadata and a copy in ``folder``."""
    from lavit_edge.export.__main__ import main

    folder.mkdir()
    bundle = folder / "bundle"
    options = ["--target", "coreml", "--precision", precision, "--checkpoint", str(checkpoint), "--out", str(bundle)]
    assert main([*options, "--float16-sqnr", "30"]) == 0  # random weights: fp16's rounding grows from block to block
    package = bundle / "model.mlpackage"
    payload, logits_of = read_payload(read_entries(package)), open_artifact(package, threads=1)
    answers = [check_golden(golden, logits_of, payload)[1] for golden in payload.golden]
    steps = [steps_off(golden, given, payload).max() for given, golden in zip(answers, payload.golden, strict=True)]
    found = {
        **facts.artifact(package, payload),
        "labels": payload.contract.labels,
        "tolerances": [golden.tolerance for golden in payload.golden],
        "step": payload.step,
        "names": [golden.name for golden in payload.golden],
        "pictures_sha256": [hashlib.sha256(golden.picture.tobytes()).hexdigest() for golden in payload.golden],
        "inputs_sha256": [
            hashlib.sha256(to_input(golden.image(), payload.contract).tobytes()).hexdigest() for golden in payload.golden
        ],
        "logits": [float(value) for golden in payload.golden for value in golden.logits],
        "answers": [given.tolist() for given in answers],
        "same_top1": sum(
            int(given.argmax() == golden.logits.argmax()) for given, golden in zip(answers, payload.golden, strict=True)
        ),
        "worst_millisteps": round(1000 * float(max(steps))),
    }
    (folder / "told.json").write_text(json.dumps(found))
    (folder / "metadata.json").write_text(json.dumps(user_metadata(package)))
    (folder / "reports").mkdir()
    shutil.copytree(package, folder / "model.mlpackage")
    return found


@pytest.fixture(scope="module")
def told(tiny_checkpoint: Path, build: Path) -> dict[str, Any]:
    return handed_over(tiny_checkpoint, "float", build / "tiny")


def swift_test(swift: Swift, build: Path, folder: str, *more: str) -> str:
    """What ``swift test`` prints of the optimised code; the tests read an artifact in ``folder`` of ``build``."""
    paths = {"METADATA": "metadata.json", "TOLD": "told.json", "PACKAGE": "model.mlpackage", "REPORTS": "reports"}
    environment = [f"LAVIT_EDGE_{name}=/build/{folder}/{path}" for name, path in paths.items()]
    options = ["-c", "release", "-Xswiftc", "-enable-testing", "-Xswiftc", "-warnings-as-errors", *more]
    done = swift("env", *environment, "swift", "test", "--scratch-path", "/build/LavitEdge", *options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def output(swift: Swift, told: dict[str, Any], build: Path) -> str:
    return swift_test(swift, build, "tiny")


def test_every_swift_test_ran_and_passed(output: str) -> None:
    wanted = {
        f"{name}.{test}"
        for name, text in ((file.stem, file.read_text()) for file in TESTS)
        for test in re.findall(r"\bfunc (test\w+)\(", text)
    }
    assert set(re.findall(r"Test Case '(\w+\.\w+)' passed", output)) == wanted
    assert "skipped" not in output


def test_golden_frames_come_out_to_the_bit(output: str) -> None:
    frames = json.loads((ROOT / "tests" / "golden" / "frames.json").read_text("utf-8"))
    assert f"golden frames: {len(frames)}, at most 0 of 255 off" in output


def test_the_app_asks_core_ml_for_what_an_exported_package_has(told: dict[str, Any], build: Path) -> None:
    """Its input and output by name and kind; the size and the metadata's keys it takes from the package itself."""
    model = specification(build / "tiny" / "model.mlpackage").description
    kinds = {part.name: part.type.WhichOneof("Type") for part in [*model.input, *model.output]}
    source = (ROOT / PACKAGE / "Sources/LavitEdgeCoreML/CoreMLModel.swift").read_text("utf-8")
    (taken,) = re.findall(r'inputDescriptionsByName\["(\w+)"\]\?\.imageConstraint', source)
    (filled,) = re.findall(r'dictionary: \["(\w+)": MLFeatureValue\(pixelBuffer:', source)
    (given,) = re.findall(r'featureValue\(for: "(\w+)"\)\?\.multiArrayValue', source)
    assert [part.name for part in model.input] == [taken] == [filled]
    assert (kinds[taken], kinds[given]) == ("imageType", "multiArrayType")
    (key,) = re.findall(r'static let key = "([\w.]+)"', (ROOT / PACKAGE / "Sources/LavitEdge/Payload.swift").read_text("utf-8"))
    entries = {f"{key}{name}" for name in ("contract", "provenance", "golden", "digest")}
    assert entries <= set(user_metadata(build / "tiny" / "model.mlpackage"))


def test_another_model_changes_no_line(
    swift: Swift, output: str, other_checkpoint: Path, build: Path, told: dict[str, Any]
) -> None:
    """What was built for ``output``, on a model with other labels, size, resize, filter and precision."""
    other = handed_over(other_checkpoint, "int8", build / "other")
    assert all(other[name] != told[name] for name in ("labels", "image_size", "contract_sha256", "precision"))
    done = swift_test(
        swift,
        build,
        "other",
        "--skip-build",
        "--filter",
        "ReportsForPython|RealArtifact|RealPackage|OfAnotherModel|DamagedPackageIsNotCompiled",
    )
    assert len(re.findall(r"Test Case '(\w+\.\w+)' passed", done)) == 7
    report = reports.read_report(build / "other" / "reports" / "passed.json")
    assert report["artifact"] == {key: other[key] for key in report["artifact"]}
    assert report["self_test"]["passed"]


@pytest.mark.parametrize("name", ["passed", "failed", "forced"])
def test_a_report_by_swift_is_read_and_not_edited(name: str, output: str, told: dict[str, Any], build: Path) -> None:
    report = reports.read_report(build / "tiny" / "reports" / f"{name}.json")
    assert not reports.edited(report)
    assert report["harness"] == {"name": "ios", "version": "0.1.0", "build": "release"}
    assert report["runtime"]["name"] == "Core ML"
    assert report["artifact"] == {key: told[key] for key in report["artifact"]}
    assert (report["self_test"]["passed"], report["self_test"]["forced"]) == (name == "passed", name == "forced")
    assert (report["latency"] is None) == (name == "failed")
    if name == "passed":
        assert report["self_test"]["same_top1"] == told["same_top1"]
        assert abs(report["self_test"]["worst_millisteps"] - told["worst_millisteps"]) <= 1
        assert report["least_duration_met"]


def test_from_an_empty_folder_to_a_call(swift: Swift, script: Callable[[str], Any], told: dict[str, Any], build: Path) -> None:
    """The lines of docs/apps.md: the package is added by its URL, built, and reaches Core ML, of which Linux has none."""
    embedding = script("embed_swift")
    assert f"These are {embedding.typed()} lines" in (ROOT / "docs" / "apps.md").read_text("utf-8")
    (build / "embedded").mkdir()
    done = embedding.embed(build / "embedded", "/build/embedded", swift)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    damaged = build / "embedded" / "model.mlpackage"
    shutil.copytree(build / "tiny" / "model.mlpackage", damaged)
    (damaged / "Manifest.json").write_text("{ }", encoding="utf-8")
    for package, words in (
        (damaged, "is not what was exported"),
        (build / "tiny" / "model.mlpackage", "this system has no Core ML"),
    ):
        ran = swift("/build/embedded/seeing/.build/debug/seeing", f"/build/{package.relative_to(build)}")
        assert ran.returncode != 0
        assert words in ran.stderr


def test_the_format_is_swifts_own(swift: Swift) -> None:
    done = swift(
        "swift-format",
        "lint",
        "--strict",
        "--recursive",
        "--configuration",
        f"{PACKAGE}/.swift-format",
        "apps/ios",
        "Package.swift",
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_compiler_warning_would_fail(swift: Swift, build: Path) -> None:
    (build / "warned.swift").write_text("func f() { let unused = 1 }\n")
    done = swift("swiftc", "-typecheck", "-warnings-as-errors", "/build/warned.swift")
    assert done.returncode != 0
    assert "never used" in done.stdout + done.stderr
