"""The digest inside an artifact: any changed byte shows, and reading it takes nothing but the bytes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from lavit_edge.artifact.seal import UNSEALED, check_seal, content_sha256, seal
from lavit_edge.errors import UserError

MODEL, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"  # as coremltools calls them


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights\x00\xff" + UNSEALED.encode() + b"\x01more")
    return path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "model.mlpackage"
    (path / WEIGHTS).parent.mkdir(parents=True)
    (path / MODEL).write_bytes(b"model" + UNSEALED.encode())
    (path / WEIGHTS).write_bytes(b"weights")
    (path / "Manifest.json").write_text("{}")
    return path


def test_the_digest_is_that_of_the_bytes_with_zeros_in_its_place(file: Path) -> None:
    wanted = hashlib.sha256(file.read_bytes()).hexdigest()
    seal(file)
    assert check_seal(file) == content_sha256(file) == wanted
    assert file.read_bytes() == b"weights\x00\xfforg.lavit_edge.sha256:" + wanted.encode() + b"\x01more"


def test_the_digest_of_a_package_is_that_of_a_line_for_each_file(package: Path) -> None:
    """In the order of the paths as text: ``Data-`` before ``Data/``, which a sort by folder would turn round."""
    (package / "Data-").write_bytes(b"more")
    seal(package)
    contents = {
        "Data-": b"more",
        MODEL: b"model" + UNSEALED.encode(),
        WEIGHTS: b"weights",
        "Manifest.json": b"{}",
    }
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items())
    assert check_seal(package) == hashlib.sha256(lines.encode()).hexdigest()


def test_what_cannot_be_read_is_one_line(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(file: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(UserError, match=r"model\.mlpackage cannot be read \(Permission denied\)"):
        content_sha256(package)


def test_every_changed_byte_of_a_file_is_noticed(file: Path) -> None:
    seal(file)
    whole = file.read_bytes()
    for index in range(len(whole)):
        file.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises(UserError):
            check_seal(file)
    for other in (whole[:-1], whole + b"\0", b""):
        file.write_bytes(other)
        with pytest.raises(UserError):
            check_seal(file)


def test_every_change_of_a_package_is_noticed(package: Path) -> None:
    seal(package)
    check_seal(package)
    (package / "extra").write_text("")
    said = r"mlpackage is not what was exported: its bytes have SHA-256 [0-9a-f]{16}\.\.\., it says [0-9a-f]{16}\.\.\.$"
    with pytest.raises(UserError, match=said):
        check_seal(package)
    (package / "extra").unlink()
    (package / WEIGHTS).rename(package / "Data" / "heavier")
    with pytest.raises(UserError, match="is not what was exported"):
        check_seal(package)
    (package / "Data" / "heavier").rename(package / WEIGHTS)
    check_seal(package)
    (package / WEIGHTS).unlink()
    (package / WEIGHTS).symlink_to(package / MODEL)
    with pytest.raises(UserError, match=f"'{WEIGHTS}' is a link"):
        check_seal(package)


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, "Manifest.json"])
def test_every_changed_byte_of_a_package_is_noticed(name: str, package: Path) -> None:
    seal(package)
    whole = (package / name).read_bytes()
    for index in range(len(whole)):
        (package / name).write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises(UserError):
            check_seal(package)


def test_what_holds_no_digest_or_two_is_not_ours(tmp_path: Path) -> None:
    for content, message in ((b"", r"a\.pte has no digest; only"), (UNSEALED.encode() * 2, "has 2 digests")):
        (tmp_path / "a.pte").write_bytes(content)
        with pytest.raises(UserError, match=message):
            check_seal(tmp_path / "a.pte")
        with pytest.raises(UserError, match=message):
            seal(tmp_path / "a.pte")
    with pytest.raises(UserError, match="does not exist"):
        check_seal(tmp_path / "nothing.pte")
    os.mkfifo(tmp_path / "pipe.pte")
    with pytest.raises(UserError, match="no plain file"):
        check_seal(tmp_path / "pipe.pte")
