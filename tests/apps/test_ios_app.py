"""The iOS app's shell and the package's product for Core ML: type-checked on Linux with stubs of Apple's; the Xcode project.

As true as the stubs are: they declare what these sources use of the frameworks, with which nobody has compiled them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from PIL import Image

from lavit_edge import __version__
from lavit_edge.benchmark import ios

pytestmark = [pytest.mark.apps, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
APP = ROOT / "apps" / "ios" / "App"
PACKAGE = ROOT / "apps" / "ios" / "LavitEdge" / "Sources"
PRODUCT = PACKAGE / "LavitEdgeCoreML"
# each needs some before it
STUBS = (
    *("CryptoKit", "CoreGraphics", "CoreVideo", "ImageIO", "QuartzCore", "CoreML"),
    *("KeyValueObserving", "AVFoundation", "UIKit", "SwiftUI", "PhotosUI"),
)
COMPILE = ["swiftc", "-swift-version", "6", "-parse-as-library", "-I", "/build"]

Check = Callable[[Path, str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def check(script: Callable[[str], Any], lack: Callable[[str], NoReturn], tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Type-checks a folder of sources as the module of that name, with the package and the stubs."""
    toolchain = script("swift_toolchain")
    try:
        root = toolchain.prepare()
    except toolchain.Unavailable as error:
        lack(str(error))
    build = tmp_path_factory.mktemp("app")

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        command = toolchain.command(root, build, argv)
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=1800)

    modules = {name: [ROOT / "tests" / "apps" / "stubs" / f"{name}.swift"] for name in STUBS}
    modules |= {name: sorted((PACKAGE / name).glob("*.swift")) for name in ("LavitEdge", "LavitEdgeCoreML")}
    for name, files in modules.items():
        paths = [str(file.relative_to(ROOT)) for file in files]
        made = run(*COMPILE, "-emit-module", "-module-name", name, "-o", f"/build/{name}.swiftmodule", *paths)
        assert made.returncode == 0, made.stderr

    def sources(folder: Path, module: str) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(build / "sources", ignore_errors=True)
        shutil.copytree(folder, build / "sources")
        names = [f"/build/sources/{file.name}" for file in sorted(folder.glob("*.swift"))]
        # SIL, not types alone: only there the compiler sees data that two threads would share
        return run(
            *COMPILE, "-warnings-as-errors", "-wmo", "-emit-sil", "-module-name", module, "-o", "/build/module.sil", *names
        )

    return sources


@pytest.mark.parametrize(("folder", "module"), [(APP / "Sources", "App"), (PRODUCT, "LavitEdgeCoreML")], ids=["app", "product"])
def test_the_sources_are_sound(folder: Path, module: str, check: Check) -> None:
    done = check(folder, module)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_lines_of_the_docs_compile(check: Check, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "apps.md").read_text("utf-8")
    (lines,) = (block for block in re.findall(r"```swift\n(.*?)```", page, re.DOTALL) if "Artifact.bundled" in block)
    (tmp_path / "eye.swift").write_text(lines, encoding="utf-8")
    done = check(tmp_path, "Embedding")
    assert done.returncode == 0, done.stderr
    (tmp_path / "eye.swift").write_text(lines.replace("classify(", "classifies("), encoding="utf-8")
    assert "has no member 'classifies'" in check(tmp_path, "Embedding").stderr


@pytest.mark.parametrize(
    ("source", "right", "wrong", "words"),
    [
        (APP / "Sources/Camera.swift", "session.addInput(input)", "session.addInput(output)", "argument type 'AVCaptureInput'"),
        (PRODUCT / "Artifact.swift", "units: units.coreML", "units: units", "expected argument type 'MLComputeUnits'"),
        (PRODUCT / "Artifact.swift", "try await MLModel", "try MLModel", "async"),
        (PRODUCT / "LavitClassifier.swift", "seal: artifact.seal", "seal: artifact.file", "cannot convert"),
        (APP / "Sources/BenchmarkScreen.swift", "trial.interrupt(why)", "trial.stop(why)", "has no member 'stop'"),
        (APP / "Sources/CameraScreen.swift", "try await recogniser.classify(frame)", "try recogniser.classify(frame)", "await"),
    ],
)
def test_the_check_finds_mistakes(source: Path, right: str, wrong: str, words: str, check: Check, tmp_path: Path) -> None:
    shutil.copytree(source.parent, tmp_path / "sources")
    text = source.read_text("utf-8")
    assert right in text
    (tmp_path / "sources" / source.name).write_text(text.replace(right, wrong), encoding="utf-8")
    done = check(tmp_path / "sources", "App" if source.is_relative_to(APP) else "LavitEdgeCoreML")
    assert done.returncode != 0
    assert words in done.stdout + done.stderr


def test_the_xcode_project_is_whole() -> None:
    pbxproj = pytest.importorskip("pbxproj") if not os.environ.get("CI") else __import__("pbxproj")
    file = APP / "LavitEdgeApp.xcodeproj" / "project.pbxproj"
    project = pbxproj.XcodeProject.load(str(file))
    known = set(project.objects.get_keys())
    named = set(re.findall(r"\b1A[0-9A-F]{22}\b", file.read_text()))
    assert named == known
    (target,) = project.objects.get_targets()
    assert target.name == "LavitEdgeApp"
    for group in project.objects.get_objects_in_section("PBXFileSystemSynchronizedRootGroup", "PBXFileReference"):
        assert group.sourceTree == "BUILT_PRODUCTS_DIR" or (APP / group.path).is_dir()
    (package,) = project.objects.get_objects_in_section("XCLocalSwiftPackageReference")
    assert (APP / package.relativePath / "Package.swift").is_file()
    versions = set(re.findall(r"MARKETING_VERSION = ([^;]+);", file.read_text()))
    assert versions == {__version__}
    assert set(re.findall(r'PRODUCT_BUNDLE_IDENTIFIER = "([^"]+)";', file.read_text())) == {ios.APP}
    assert {product.productName for product in project.objects.get_objects_in_section("XCSwiftPackageProductDependency")} == {
        "LavitEdge",
        "LavitEdgeCoreML",
    }
    for key in ("INFOPLIST_KEY_NSCameraUsageDescription", "ASSETCATALOG_COMPILER_APPICON_NAME = AppIcon"):
        assert file.read_text().count(key) == 2  # Debug and Release
    assert file.read_text().count("UIInterfaceOrientationLandscapeLeft") == 4


def test_every_text_on_the_screens_is_in_the_catalogue() -> None:
    """A line of the catalogue that no screen shows is as wrong as one that it lacks."""
    catalogue = json.loads((APP / "Sources" / "Localizable.xcstrings").read_text("utf-8"))
    manual = {key for key, entry in catalogue["strings"].items() if entry.get("extractionState") == "manual"}
    shown = set()
    views = r"\b(?:Text|Label|Button|Toggle|Link|Picker|PhotosPicker|ProgressView|ShareLink|Stepper)\("
    literal = r'(?:[\w.]+ \? )?"((?:[^"\\]|\\.)*)"(?: : "(\w+)")?'  # or one of two
    for file in (APP / "Sources").glob("*.swift"):
        for texts in re.findall(views + literal, file.read_text("utf-8")):
            shown |= {re.sub(r"\\\((?:[^()]|\([^()]*\))*\)", "*", text) for text in texts if text}
    assert shown == {re.sub(r"%@|%lld", "*", key) for key in set(catalogue["strings"]) - manual}
    problems = (PACKAGE / "LavitEdge" / "CameraProblem.swift").read_text("utf-8")
    fixed = set(re.findall(r'case \.\w+: "([^"\\]+)"', problems))
    assert len(fixed) > 4
    assert manual == fixed | {f"this device has no {side} camera" for side in ("front", "back")}


def test_the_icon_is_one_that_the_store_takes() -> None:
    """1024 pixels square, opaque, and of the colours of apps/web/icon.svg."""
    svg = (ROOT / "apps" / "web" / "icon.svg").read_text("utf-8")
    with Image.open(APP / "Sources/Assets.xcassets/AppIcon.appiconset/AppIcon.png") as icon:
        assert (icon.size, icon.mode) == ((1024, 1024), "RGB")
        colours = icon.getcolors(1 << 20)
    most = sorted(colours, reverse=True)[:3]
    assert {f"#{bytes(colour).hex()}" for _, colour in most} == set(re.findall(r'"(#\w{6})"', svg))
