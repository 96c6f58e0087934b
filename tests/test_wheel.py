"""What ``pip install`` gets: wheel and sdist hold everything, and ``[runtime]`` is enough to classify, and nothing more."""

from __future__ import annotations

import email
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import lavit_edge

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
CAT = ROOT / "lavit_edge" / "golden" / "cat.png"
HOMES = {
    "lavit_edge/quantize": "quantize",
    "lavit_edge/export": "export",
    "lavit_edge/native": "native",
    "lavit_edge/web": "apps/web",
}
# of a checkout's folders, what is for tests and for reading alone
LEFT_OUT = r"(native/\.clang-format|native/tests/.*|apps/web/tests/.*|apps/web/README\.md|.*/__pycache__/.*)"
RUNTIME = {"lavit-edge", "numpy", "packaging", "pillow", "safetensors", "onnxruntime", "flatbuffers", "protobuf"}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built of it."""
    if importlib.util.find_spec("build") is None or importlib.util.find_spec("twine") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("build and twine are missing")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):  # not from the checkout itself, which a build would leave things in
        shutil.copy(ROOT / name, source)
    for name in ("lavit_edge", "quantize", "export", "native", "apps/web"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([sys.executable, "-m", "build", "--outdir", out, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def test_everything_is_in_both(dist: Path) -> None:
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    tree = [file for name in ("lavit_edge", "quantize", "export", "native", "apps/web") for file in (ROOT / name).rglob("*")]
    wanted = {file.relative_to(ROOT).as_posix() for file in tree if file.is_file()}
    wanted = {name for name in wanted if not re.fullmatch(LEFT_OUT, name)}
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    renamed = set()
    for name in inside:
        home = next((home for home in HOMES if name.startswith(f"{home}/")), None)
        renamed.add(HOMES[home] + name.removeprefix(home) if home else name)
    assert wanted - renamed == set()
    assert renamed - wanted == set(), "something that is not of the package"
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert (wanted | {"pyproject.toml", "README.md", "LICENSE"}) - packed == set()
    headers = email.message_from_string(metadata)
    required = [line for line in headers.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert sorted(re.split(r"[^\w-]", line)[0] for line in required) == ["numpy", "packaging", "pillow", "safetensors"]
    assert headers["Version"] == lavit_edge.__version__


def test_the_metadata_is_sound(dist: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_runtime_alone_is_an_app(dist: Path, tiny_onnx: Path, tmp_path: Path) -> None:
    """In an environment of its own, made of the wheel, far from the checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    options = dict(capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(word) for word in command], **options)  # type: ignore[call-overload]

    (wheel,) = dist.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    done = run(python, "-m", "pip", "install", "--quiet", "--no-compile", f"{wheel}[runtime]")
    assert done.returncode == 0, done.stderr
    listed = run(python, "-m", "pip", "list", "--format", "freeze", "--disable-pip-version-check").stdout
    assert {line.partition("==")[0].lower() for line in listed.splitlines()} - {"pip", "setuptools"} == RUNTIME
    app = "import lavit_edge, sys; print(lavit_edge.Classifier(sys.argv[1]).classify(sys.argv[2])[0], 'torch' in sys.modules)"
    shutil.copy(CAT, tmp_path / "cat.png")
    best = lavit_edge.Classifier(tiny_onnx).classify(CAT)[0]
    done = run(python, "-c", app, tiny_onnx, "cat.png")
    assert done.returncode == 0, done.stderr
    assert f"label={best.label!r}" in done.stdout
    assert done.stdout.endswith(" False\n")
    command = tmp_path / "venv" / "bin" / "lavit-edge"
    tested = run(command, "selftest", tiny_onnx)
    assert tested.returncode == 0, tested.stderr
    assert tested.stdout.endswith("self-test passed\n")
    assert "usage" in run(command, "serve", "--help").stdout
    done = run(command, "export", "--out", "bundle")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "pip install 'lavit-edge[torch]'" in done.stderr
    assert not (tmp_path / "bundle").exists()
