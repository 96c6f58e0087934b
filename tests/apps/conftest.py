"""What the tests of the apps need of the system: programs, files of Debian packages, tools from npm."""

from __future__ import annotations

import importlib.util
import json
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
def lack() -> Callable[[str], NoReturn]:
    return lacking


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
def make_pte(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str], Path]:
    """``make_pte(checkpoint, "int8")``: a real ``.pte``, by the exporter without its comparisons."""
    from lavit_edge.artifact.seal import check_seal
    from lavit_edge.checkpoint import load_checkpoint
    from lavit_edge.export import executorch
    from lavit_edge.export.golden import make_payload
    from lavit_edge.export.targets import ExecutorchOptions
    from lavit_edge.quantize.program import float_program, int8_program

    def make(path: Path, precision: str) -> Path:
        checkpoint, made = load_checkpoint(path), tmp_path_factory.mktemp(f"{path.name}-pte") / "model.pte"
        program, steps = (float_program(checkpoint), 0.1) if precision == "float" else (int8_program(checkpoint), 50.0)
        provenance = {"precision": precision, "checkpoint": {"name": path.name}}
        executorch.export(program, make_payload(program, checkpoint.contract, provenance, steps), made, ExecutorchOptions())
        check_seal(made)
        return made

    return make


@pytest.fixture(scope="session")
def tiny_pte(make_pte: Callable[[Path, str], Path], tiny_checkpoint: Path) -> Path:
    return make_pte(tiny_checkpoint, "float")


@pytest.fixture(scope="session")
def read_by_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """``read_by_python(pte)``: a folder with the file as ``model``, its payload, and what Python makes of its golden pictures."""
    from lavit_edge.artifact.payload import read_payload
    from lavit_edge.artifact.runners import open_artifact, read_entries, to_tensor
    from lavit_edge.contract.pictures import to_input
    from lavit_edge.selftest import steps_off

    def read(model: Path) -> Path:
        folder = tmp_path_factory.mktemp("artifact")
        (folder / "model").write_bytes(model.read_bytes())
        for name, value in read_entries(model).items():
            (folder / name).write_bytes(value.encode() if isinstance(value, str) else value)
        payload, logits_of = read_payload(read_entries(model)), open_artifact(model, threads=1)
        same, worst = 0, 0.0
        for index, golden in enumerate(payload.golden):
            square = to_input(golden.image(), payload.contract)
            logits = logits_of(square)
            (folder / f"input.{index}").write_bytes(square.tobytes())
            (folder / f"tensor.{index}").write_bytes(to_tensor(square).tobytes())
            (folder / f"logits.{index}").write_bytes(logits.astype("<f4").tobytes())
            (folder / f"expected.{index}").write_bytes(golden.logits.astype("<f4").tobytes())
            same += int(logits.argmax()) == int(golden.logits.argmax())
            worst = max(worst, float(steps_off(golden, logits, payload).max()))
        facts = {
            "names": [golden.name for golden in payload.golden],
            "labels": payload.contract.labels,
            "size": payload.contract.size,
            "tolerances": [golden.tolerance for golden in payload.golden],
            "step": payload.step,
            "model": payload.provenance["checkpoint"]["name"],
            "same_top1": same,
            "worst_millisteps": round(1000 * worst),
        }
        (folder / "facts.json").write_text(json.dumps(facts))
        (folder / "contract.sha256").write_text(payload.contract.sha256)
        return folder

    return read


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model than ``tiny_checkpoint`` in all that an app must not know: labels, size, resize, filter, precision."""
    from lavit_edge.contract import InputContract
    from lavit_edge.doctor.smallest import save_smallest

    labels = ("château", "犬", 'a "quoted" one', "d", "e 😀", "f", "g")
    path = tmp_path_factory.mktemp("other") / "checkpoint"
    save_smallest(path, InputContract(96, labels, resize="crop", interpolation="bilinear", crop_fraction=0.8))
    return path
