"""The build files of apps/android, without Gradle, which cannot be had here: what they name is there, and of one version."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lavit_edge

pytestmark = [pytest.mark.apps, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
ANDROID = ROOT / "apps" / "android"


def test_versions_are_those_of_the_project() -> None:
    files = {file.parent.name: file.read_text() for file in ANDROID.rglob("build.gradle.kts")}
    pins = json.loads((ROOT / "apps" / "versions.json").read_text())
    kotlin, version = pins["kotlin-compiler"]["version"], lavit_edge.__version__
    assert f'id("org.jetbrains.kotlin.jvm") version "{kotlin}"' in files["android"]
    assert f'versionName = "{version}"' in files["app"]
    for module in ("core", "classifier"):
        assert f'\ngroup = "org.lavitedge"\nversion = "{version}"\n' in files[module]
    whole = "".join(files.values())
    for library in ("org.jetbrains.kotlin:kotlin-test-junit", "junit:junit", "org.pytorch:executorch-android"):
        assert len(set(re.findall(rf'"{library}:(.+)"', whole))) == 1
    assert set(re.findall(r"kotlin-test-junit:([\d.]+)", whole)) == {kotlin}
    executorch = re.findall(r'executorch-android:([\d.]+)"', files["classifier"])
    assert re.findall(r'EXECUTORCH_VERSION", "\\"(.+?)\\""', files["app"]) == executorch
    for name in ("compileSdk", "minSdk"):
        assert len(set(re.findall(rf"{name} = (\d+)", whole))) == 1


def test_a_project_that_includes_the_build_finds_all_that_it_names(tmp_path: Path) -> None:
    """Gradle itself does not run here: what it would resolve is followed through its files."""
    page = (ROOT / "docs" / "apps.md").read_text("utf-8")
    section = page.split("## Android")[1].split("\n## ")[0]
    (included,) = re.findall(r'^includeBuild\("lavit-edge/(.+)"\)', section, re.MULTILINE)
    build = ROOT / included
    group, name, version = re.findall(r'implementation\("([\w.]+):(\w+):([\d.]+)"\)', section)[0]
    modules = re.findall(r'":(\w+)"', (build / "settings.gradle.kts").read_text())
    assert name in modules
    assert f'\ngroup = "{group}"\nversion = "{version}"\n' in (build / name / "build.gradle.kts").read_text()
    offered = re.findall(r'id\("(.+)"\) version "[\d.]+" apply false', (build / "build.gradle.kts").read_text())
    for module in modules:
        text = (build / module / "build.gradle.kts").read_text()
        assert set(re.findall(r'^ +id\("(.+)"\)$', text, re.MULTILINE)) <= set(offered)
        assert "libs." not in text  # a catalogue would be the host's
        wanted = re.findall(r"(?:api|[iI]mplementation)\((.+)\)", text)
        assert wanted or module == "core"
        for what in wanted:
            assert re.fullmatch(r'"[\w.-]+:[\w.-]+:[\d.]+"', what) or what[10:-2] in modules, what
    # the two builds share a Gradle: its Android plugins must be of one version
    plugin = re.findall(r'id\("com.android.application"\) version "([\d.]+)"', section)
    assert plugin == re.findall(r'id\("com.android.application"\) version "([\d.]+)"', (build / "build.gradle.kts").read_text())
    assert "android.useAndroidX=true" in section
    assert "android.useAndroidX=true" in (build / "gradle.properties").read_text()


def test_gradles_wrapper(script: Callable[[str], Any], tool: Callable[[str], Path], tmp_path: Path) -> None:
    """Its scripts are those of the package that its jar comes from, and find the jar: there is no Gradle to be had behind it."""
    package = tool("react-native") / "template" / "android"
    shutil.copytree(ANDROID / "gradle", tmp_path / "gradle")
    for name in ("gradlew", "gradlew.bat"):
        assert (ANDROID / name).read_bytes().split() == (package / name).read_bytes().split()
    shutil.copy(ANDROID / "gradlew", tmp_path)
    wrapper = script("gradle_wrapper")
    assert wrapper.JAR == ANDROID / "gradle" / "wrapper" / "gradle-wrapper.jar"
    shutil.copy(package / "gradle" / "wrapper" / wrapper.JAR.name, tmp_path / "gradle" / "wrapper")
    properties = tmp_path / "gradle" / "wrapper" / "gradle-wrapper.properties"
    properties.write_text(properties.read_text().replace("https\\://services.gradle.org/distributions", tmp_path.as_uri()))
    environment = {**os.environ, "GRADLE_USER_HOME": str(tmp_path / "home")}
    done = subprocess.run(["sh", tmp_path / "gradlew", "help"], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode != 0
    assert "gradle-9.4.1-bin.zip" in done.stdout + done.stderr  # it wants to fetch what the properties name


def test_nothing_of_a_model_is_in_the_code() -> None:
    """Labels, sizes, means: they are the artifact's, so that another model changes no line."""
    bundled = [file.parent / "config.json" for file in sorted((ROOT / "lavit_edge" / "checkpoints").glob("*/model.safetensors"))]
    assert bundled
    words = [r"\b(?:160|192|224|256)\b", r"0\.485|0\.229"]
    for config in bundled:
        words += [rf'"{re.escape(label)}' for label in json.loads(config.read_text())["contract"]["labels"]]
    for module in ("classifier", "app"):
        for file in (ANDROID / module / "src" / "main").rglob("*.kt"):
            assert re.findall("|".join(words), file.read_text()) == []


def test_a_model_that_does_not_exist(tmp_path: Path) -> None:
    command = ["python", ROOT / "scripts" / "android_apk.py", tmp_path / "model.pte", "--out", tmp_path / "lavit.apk"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path / 'model.pte'} does not exist\n")
    assert list(tmp_path.iterdir()) == []
