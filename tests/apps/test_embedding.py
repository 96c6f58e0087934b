"""The classifier in an app of another language: the C++ library with its example, and the page's lines for Node.js."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from PIL import Image

import lavit_edge

pytestmark = [pytest.mark.apps, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
CAT = ROOT / "lavit_edge" / "golden" / "cat.png"


def run(*command: str | Path, folder: Path | None = None) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=folder, timeout=600, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def check_answers(output: str, artifact: Path, picture: Path, off: float) -> None:
    """Three lines ``label probability``, each as Python has it, the most probable first."""
    expected = {answer.label: answer.probability for answer in lavit_edge.Classifier(artifact).classify(picture, top=1000)}
    found = [(label, float(number)) for label, number in (line.rsplit(" ", 1) for line in output.splitlines())]
    assert len(found) == 3
    assert [number for _, number in found] == sorted((number for _, number in found), reverse=True)
    assert [number for _, number in found] == pytest.approx([expected[label] for label, _ in found], abs=off)
    assert found[0][1] >= max(expected.values()) - off


@pytest.fixture(scope="module")
def classify(debian_file: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """native/example, built as an app builds it, on the libraries of the ExecuTorch that is installed here."""
    for path, package in (
        ("/usr/bin/cmake", "cmake"),
        ("/usr/bin/make", "make"),
        ("/usr/bin/g++", "g++"),
        ("/usr/include/nlohmann/json.hpp", "nlohmann-json3-dev"),
        ("/usr/include/stb/stb_image.h", "libstb-dev"),
    ):
        debian_file(path, package)
    found = importlib.util.find_spec("executorch")
    if found is None or not found.submodule_search_locations:
        pytest.skip("executorch is not installed")
    build = tmp_path_factory.mktemp("example")
    prefix = f"-DCMAKE_PREFIX_PATH={found.submodule_search_locations[0]}"
    run("cmake", "-S", ROOT / "native" / "example", "-B", build, prefix)
    run("cmake", "--build", build)
    return build / "classify"


def test_an_app_in_cpp(classify: Path, bundle: Path, tmp_path: Path) -> None:
    assert len((ROOT / "native" / "example" / "classify.cpp").read_text("utf-8").splitlines()) <= 31
    pte = bundle / "model.pte"
    check_answers(run(classify, pte, CAT), pte, CAT, 0.002)
    changed, whole = tmp_path / "model.pte", pte.read_bytes()
    changed.write_bytes(whole[:-5000] + bytes([whole[-5000] ^ 1]) + whole[-4999:])
    (tmp_path / "no.png").write_bytes(b"no picture")
    for words, message in (
        ((changed, CAT), "is not what was exported"),
        ((pte, tmp_path / "no.png"), "no.png: "),
        ((pte,), "classify MODEL.pte PICTURE"),
    ):
        done = subprocess.run([classify, *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_an_app_in_node(bundle: Path, lack: Callable[[str], NoReturn], tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        lack("node and npm are missing")
    page = (ROOT / "docs" / "apps.md").read_text("utf-8")
    (script,) = (code for code in re.findall(r"```js\n(.*?)```", page, re.DOTALL) if "jpeg-js" in code)
    assert len(script.splitlines()) <= 27
    (packages,) = re.findall(r"npm install (onnxruntime-web@\S+ jpeg-js@\S+)", page)
    pin = json.loads((ROOT / "apps" / "web" / "onnxruntime-web.json").read_text("utf-8"))
    assert f"onnxruntime-web@{pin['version']}" in packages
    shutil.copytree(ROOT / "apps" / "web" / "lib", tmp_path / "lib")
    shutil.copy(ROOT / "apps" / "web" / "package.json", tmp_path)
    (tmp_path / "classify.mjs").write_text(script, encoding="utf-8")
    run(npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", *packages.split(), folder=tmp_path)
    picture = tmp_path / "cat.jpg"
    Image.open(CAT).convert("RGB").save(picture, quality=100, subsampling=0)  # which decoders hardly part on
    onnx = bundle / "model.onnx"
    check_answers(run(node, "classify.mjs", onnx, picture, folder=tmp_path), onnx, picture, 0.05)
    changed, whole = tmp_path / "model.onnx", onnx.read_bytes()
    changed.write_bytes(whole[:-5000] + bytes([whole[-5000] ^ 1]) + whole[-4999:])
    done = subprocess.run([node, "classify.mjs", changed, picture], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not what was exported" in done.stderr
