"""``lavit_edge.Classifier``: the runtime's answers, for every kind of artifact and picture, without torch; its refusals."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lavit_edge
from lavit_edge import Classifier, UserError
from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import open_artifact, read_entries
from lavit_edge.contract.frames import Frame, Plane
from lavit_edge.contract.pictures import load_input

CAT = Path(lavit_edge.__file__).parent / "golden" / "cat.png"
# whatever an app's environment lacks; a name of None in sys.modules cannot be imported
LACKING = "import sys; sys.modules |= dict.fromkeys(('torch', 'rich', 'onnx', 'nncf', 'coremltools', 'executorch', 'torchao'))\n"
APP = """
import lavit_edge
classifier = lavit_edge.Classifier(sys.argv[1])
best = classifier.classify(sys.argv[2])[0]
print(best.label, f"{best.probability:.6f}")
print(sorted({"argparse", "asyncio", "scipy", "matplotlib"} & set(sys.modules)))
"""


@pytest.mark.parametrize("name", ["model.onnx", "model.ort", "model.pte"])
def test_answers_are_those_of_the_runtime(name: str, bundle: Path) -> None:
    classifier = Classifier(bundle / name)
    logits = open_artifact(bundle / name, threads=1)(load_input(CAT, classifier.contract))
    expected = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum()
    answers = classifier.classify(CAT, top=100)
    assert [answer.index for answer in answers] == sorted(range(len(logits)), key=lambda index: -logits[index])
    assert [answer.label for answer in answers] == [classifier.contract.labels[answer.index] for answer in answers]
    assert [answer.probability for answer in answers] == pytest.approx([expected[answer.index] for answer in answers])
    assert classifier.classify(CAT, top=2) == answers[:2]
    assert classifier.contract == read_payload(read_entries(bundle / name)).contract
    assert classifier.provenance["checkpoint"]["name"]
    assert len(classifier.digest) == 64


def test_a_picture_is_whatever_python_has_of_it(bundle: Path) -> None:
    classifier, image = Classifier(bundle / "model.onnx", selftest=False), Image.open(CAT).convert("RGB")
    turned, pixels = io.BytesIO(), np.asarray(image)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    image.transpose(Image.Transpose.ROTATE_90).save(turned, "PNG", exif=exif)
    rgba = np.dstack([pixels, np.full(pixels.shape[:2], 7, np.uint8)])
    frame = Frame("rgba", image.width, image.height, [Plane(rgba.tobytes(), 4 * image.width, 4)])
    pictures = [CAT, str(CAT), CAT.read_bytes(), image, pixels, frame, turned.getvalue(), Image.open(turned)]
    first, *others = classifier.classify_batch(pictures, top=3)  # type: ignore[arg-type]
    assert len(first) == 3
    assert others == [first] * 7


@pytest.mark.parametrize("name", ["model.onnx", "model.ort"])
def test_an_app_needs_no_torch_and_no_toolchain(name: str, bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LACKING + APP, bundle / name, CAT]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    best = Classifier(bundle / name).classify(CAT)[0]
    assert done.stdout.splitlines()[0] == f"{best.label} {best.probability:.6f}", done.stderr
    assert done.stdout.splitlines()[1] == "['argparse']", "what costs time to import and is not used"
    assert done.stderr == ""


def test_the_lines_of_the_page_run(tiny_onnx: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "apps.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shutil.copy(tiny_onnx, tmp_path / "model.onnx")
    shutil.copy(CAT, tmp_path / "picture.jpg")  # a picture is what its bytes say
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert len(done.stdout.splitlines()) == 3, done.stderr


def test_an_artifact_that_fails_its_selftest_is_refused(resealed_onnx: Callable[..., Path], tiny_onnx: Path) -> None:
    contract = read_payload(read_entries(tiny_onnx)).contract
    other = resealed_onnx(contract=replace(contract, resize="crop").to_json())
    with pytest.raises(UserError, match=r"model.onnx fails its self-test here: .*: preprocessing: at most \d+ of 255 off"):
        Classifier(other)
    assert Classifier(other, selftest=False).classify(CAT)
    with pytest.raises(UserError, match="entry 'golden' is missing"):
        Classifier(resealed_onnx(golden=None), selftest=False)


def test_a_changed_byte_is_refused_without_a_selftest_too(tiny_onnx: Path, tmp_path: Path) -> None:
    whole = tiny_onnx.read_bytes()
    changed = tmp_path / "model.onnx"
    changed.write_bytes(whole[:-5000] + bytes([whole[-5000] ^ 1]) + whole[-4999:])
    with pytest.raises(UserError, match="is not what was exported"):
        Classifier(changed, selftest=False)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("nowhere.png", "nowhere.png: not a file"),
        (b"GIF89a", "picture of 6 bytes: "),
        (np.zeros((8, 8, 3), np.float32), r"an array must be uint8 RGB \(height, width, 3\), not float32 \(8, 8, 3\)"),
        (np.zeros((8, 8), np.uint8), "an array must be uint8 RGB"),
        (np.zeros((0, 8, 3), np.uint8), "an array must be uint8 RGB"),
        (None, "a picture is a file, bytes, .* not NoneType"),
        (Frame("rgba", 4, 4, []), "frame: rgba has 1 planes, not 0"),
    ],
)
def test_what_is_no_picture_is_said_on_one_line(picture: Any, message: str, tiny_onnx: Path) -> None:
    with pytest.raises(UserError, match=message):
        Classifier(tiny_onnx, selftest=False).classify(picture)


def test_other_mistakes_are_said_on_one_line(tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"nowhere.onnx does not exist"):
        Classifier("nowhere.onnx")
    (tmp_path / "model.txt").write_bytes(tiny_onnx.read_bytes())
    with pytest.raises(UserError, match=r"no runner for 'model\.txt'; artifacts end in"):
        Classifier(tmp_path / "model.txt")
    with pytest.raises(UserError, match="threads must be at least 1, not 0"):
        Classifier(tiny_onnx, threads=0)
    with pytest.raises(UserError, match="top must be at least 1, not 0"):
        Classifier(tiny_onnx, selftest=False).classify(CAT, top=0)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"ONNX Runtime is not usable here .* pip install 'lavit-edge\[runtime\]'$"):
        Classifier(tiny_onnx)


def test_an_mlpackage_is_for_a_mac(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There by coremltools, in whose place our evaluator of ML programs answers here: Core ML itself has never run this."""
    from lavit_edge.artifact.mlprogram import MLProgram, user_metadata

    package = bundle / "model.mlpackage"
    if sys.platform != "darwin":
        with pytest.raises(UserError, match=r"model.mlpackage runs in Core ML, on Apple's systems alone; use the .onnx"):
            Classifier(package)

    class MLModel:
        def __init__(self, path: str) -> None:
            self.program, self.user_defined_metadata = MLProgram(Path(path)), user_metadata(Path(path))

        def predict(self, inputs: dict[str, Image.Image]) -> dict[str, Any]:
            return self.program.predict({"image": np.asarray(inputs["image"])})

    stub = ModuleType("coremltools")
    stub.models = SimpleNamespace(MLModel=MLModel)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "coremltools", stub)
    monkeypatch.setattr(sys, "platform", "darwin")
    best = Classifier(package).classify(CAT)[0]
    assert best.probability == pytest.approx(Classifier(bundle / "model.onnx").classify(CAT)[0].probability, abs=0.2)
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(UserError, match=r"Core ML is not usable here .* pip install 'lavit-edge\[coreml\]'$"):
        Classifier(package)


@pytest.mark.parametrize(
    "words",
    [
        "adapt --builder timm:create_model --out out",
        "benchmark {tiny_onnx}",
        "doctor",
        "export --out out",
        "profile {tiny_onnx}",
        "quantize --checkpoint {tiny_checkpoint} --data {colours} --out out",
        "shards --data {colours} --out out",
        "train --data {colours} --out out",
        "verify {bundle}",
    ],
)
def test_a_command_that_needs_torch_or_rich_says_so(words: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    for name in re.findall(r"{(\w+)}", words):
        words = words.replace(f"{{{name}}}", str(request.getfixturevalue(name)))
    command, *arguments = words.split()
    run = f"import runpy; runpy.run_module('lavit_edge.{command}', run_name='__main__', alter_sys=True)"
    no_torch = [] if command in ("benchmark", "doctor", "shards") else ["import sys; sys.modules['torch'] = None; "]
    for lacking in (LACKING, *no_torch):
        code = [sys.executable, "-W", "ignore", "-c", lacking + run, *arguments]
        done = subprocess.run(code, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 2, done.stderr
        assert "is not installed; pip install 'lavit-edge[torch]'" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["quantize('a', 'b', 'c')", "export()", "create_model('lavit_tiny', num_classes=2)"])
def test_so_does_a_function(call: str) -> None:
    code = f"{LACKING}import lavit_edge\ntry:\n lavit_edge.{call}\nexcept lavit_edge.UserError as error:\n print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "which is not installed; pip install 'lavit-edge[torch]'" in done.stdout, done.stderr
