"""The digest that a manifest holds of each artifact: of a package, every file, by its name and its bytes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from lavit_edge.artifact.bundle import artifact_sha256
from lavit_edge.errors import UserError

FILES = {
    "Data/com.apple.CoreML/model.mlmodel": b"model",
    "Data/com.apple.CoreML/weights/weight.bin": b"weights",
    "Manifest.json": b"{}",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "model.mlpackage"
    for name, content in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def test_of_a_file_it_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "model.pte").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert artifact_sha256(tmp_path / "model.pte") == known


def test_of_a_package_it_is_that_of_a_line_for_each_file(package: Path) -> None:
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in FILES.items())
    assert artifact_sha256(package) == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize("name", FILES)
def test_every_file_counts(name: str, package: Path) -> None:
    before, file = artifact_sha256(package), package / name
    file.write_bytes(FILES[name] + b"\0")
    other = artifact_sha256(package)
    file.write_bytes(FILES[name])
    file.rename(file.with_name("other"))
    moved = artifact_sha256(package)
    (file.parent / "other").unlink()
    assert len({before, other, moved, artifact_sha256(package)}) == 4
    file.symlink_to(package / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        artifact_sha256(package)
    file.unlink()
    file.symlink_to(package)  # a folder that is there
    with pytest.raises(UserError, match="is a link"):
        artifact_sha256(package)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(UserError, match="no file"):
        artifact_sha256(package)
