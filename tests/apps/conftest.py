"""What the tests of the apps need of the system: programs, files of Debian packages, tools from npm."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).parents[2]


def lacking(what: str) -> NoReturn:
    """Skips the test; where everything is to be there, in CI, it fails."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def java() -> str:
    return shutil.which("java") or lacking("java is missing; on Debian: apt-get install openjdk-17-jdk-headless")


@pytest.fixture(scope="session")
def debian_file() -> Callable[[str, str], Path]:
    """``debian_file("/usr/share/java/junit4.jar", "junit4")``: a file, and the package that brings it."""

    def find(path: str, package: str) -> Path:
        return Path(path) if Path(path).exists() else lacking(f"{path} is missing; on Debian: apt-get install {package}")

    return find


@pytest.fixture(scope="session")
def script() -> Callable[[str], Any]:
    """``script("app_tools")``: a module of scripts/."""

    def load(name: str) -> Any:
        spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def tool(script: Callable[[str], Any]) -> Callable[[str], Path]:
    """``tool("kotlin-compiler")``: the folder of a tool of apps/versions.json."""

    def find(name: str) -> Path:
        try:
            return script("app_tools").fetch(name)
        except RuntimeError as error:
            lacking(str(error))

    return find


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model than ``tiny_checkpoint`` in all that an app must not know: labels, size, resize, filter, precision."""
    from lavit_edge.contract import InputContract
    from lavit_edge.doctor.smallest import save_smallest

    labels = ("château", "犬", 'a "quoted" one', "d", "e 😀", "f", "g")
    path = tmp_path_factory.mktemp("other") / "checkpoint"
    save_smallest(path, InputContract(96, labels, resize="crop", interpolation="bilinear", crop_fraction=0.8))
    return path
