"""The iOS app's shell (apps/ios/App): type-checked on Linux against stubs of Apple's frameworks, and its Xcode project.

As true as the stubs are: they declare what apps/ios/App uses of the frameworks, with which nobody has compiled it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lavit_edge import __version__
from lavit_edge.benchmark import ios

pytestmark = [pytest.mark.apps, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
APP = ROOT / "apps" / "ios" / "App"
PACKAGE = "apps/ios/LavitEdge/Sources/LavitEdge"
# each needs some before it
STUBS = ("CoreGraphics", "CoreVideo", "ImageIO", "QuartzCore", "CoreML", "AVFoundation", "UIKit", "SwiftUI", "PhotosUI")
COMPILE = ["swiftc", "-swift-version", "6", "-parse-as-library", "-I", "/build"]

Check = Callable[[Path], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Type-checks a folder of sources with the package and the stubs."""
    spec = importlib.util.spec_from_file_location("swift_toolchain", ROOT / "scripts" / "swift_toolchain.py")
    assert spec is not None
    assert spec.loader is not None
    toolchain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(toolchain)
    try:
        root = toolchain.prepare()
    except toolchain.Unavailable as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    build = tmp_path_factory.mktemp("app")

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        command = toolchain.command(root, build, argv)
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=1800)

    modules = {name: [f"tests/apps/stubs/{name}.swift"] for name in STUBS}
    modules["LavitEdge"] = [str(file.relative_to(ROOT)) for file in sorted((ROOT / PACKAGE).glob("*.swift"))]
    for name, sources in modules.items():
        made = run(*COMPILE, "-emit-module", "-module-name", name, "-o", f"/build/{name}.swiftmodule", *sources)
        assert made.returncode == 0, made.stderr

    def sources(folder: Path) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(build / "sources", ignore_errors=True)
        shutil.copytree(folder, build / "sources")
        names = [f"/build/sources/{file.name}" for file in sorted(folder.glob("*.swift"))]
        # SIL, not types alone: only there the compiler sees data that two threads would share
        return run(*COMPILE, "-warnings-as-errors", "-wmo", "-emit-sil", "-module-name", "App", "-o", "/build/app.sil", *names)

    return sources


def test_the_app_is_sound(check: Check) -> None:
    done = check(APP / "Sources")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "right", "wrong", "words"),
    [
        ("Camera.swift", "session.addInput(input)", "session.addInput(output)", "expected argument type 'AVCaptureInput'"),
        ("Artifact.swift", "units: units.coreML", "units: units", "expected argument type 'MLComputeUnits'"),
        ("Recogniser.swift", "seal: artifact.seal", "seal: artifact.file", "cannot be used on instance"),
        ("BenchmarkScreen.swift", "trial.interrupt(why)", "trial.stop(why)", "has no member 'stop'"),
        ("LavitEdgeApp.swift", "await loaded.selfTest", "loaded.selfTest", "await"),
    ],
)
def test_the_check_finds_mistakes(file: str, right: str, wrong: str, words: str, check: Check, tmp_path: Path) -> None:
    shutil.copytree(APP / "Sources", tmp_path / "sources")
    source = tmp_path / "sources" / file
    text = source.read_text()
    assert right in text
    source.write_text(text.replace(right, wrong))
    done = check(tmp_path / "sources")
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
    assert "INFOPLIST_KEY_NSCameraUsageDescription" in file.read_text()
