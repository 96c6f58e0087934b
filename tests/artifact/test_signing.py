"""A signed bundle is accepted with its owner's key alone, and only as it was signed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lavit_edge.artifact.signing import sign_bundle, signature_mismatch
from lavit_edge.errors import UserError
from lavit_edge.verify import main as verify


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    plain = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, spki))
    return private, public


@pytest.fixture
def signed(bundle: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    sign_bundle(copy, key_pair(tmp_path, "ours")[0])
    return copy


def test_a_signed_bundle_verifies_and_names_no_path_of_this_machine(signed: Path, tmp_path: Path) -> None:
    assert signature_mismatch(signed, tmp_path / "ours.pub.pem") is None
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(signed, moved)
    assert signature_mismatch(moved, tmp_path / "ours.pub.pem") is None
    assert str(tmp_path) not in (signed / "bundle.sig").read_text()


def test_any_changed_added_or_missing_file_is_named(signed: Path, tmp_path: Path) -> None:
    key = tmp_path / "ours.pub.pem"
    card = (signed / "README.md").read_text()
    (signed / "README.md").write_text(card + "better\n")
    assert "README.md" in (signature_mismatch(signed, key) or "")
    (signed / "README.md").write_text(card)
    (signed / "extra").write_text("")
    assert "extra" in (signature_mismatch(signed, key) or "")
    (signed / "extra").unlink()
    (signed / "parity.html").unlink()
    assert "parity.html" in (signature_mismatch(signed, key) or "")


def test_another_key_a_damaged_signature_or_none(signed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = key_pair(tmp_path, "other")[1]
    assert "is not what the owner" in (signature_mismatch(signed, other) or "")
    assert verify([str(signed), "--signature", str(other)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("signature: ")
    assert error.count("\n") == 1
    whole = (signed / "bundle.sig").read_text()
    for content in ("", "{}", "[]", whole[:-20], whole.replace("A", "B", 1)):
        (signed / "bundle.sig").write_text(content)
        assert "\n" not in (signature_mismatch(signed, tmp_path / "ours.pub.pem") or "\n")
    (signed / "bundle.sig").unlink()
    assert "is not signed" in (signature_mismatch(signed, tmp_path / "ours.pub.pem") or "")


def test_a_key_that_is_none_is_one_line(bundle: Path, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "ours")
    with pytest.raises(UserError, match="not an EC public key"):
        signature_mismatch(bundle, private)
    with pytest.raises(UserError, match="not an EC public key"):
        signature_mismatch(bundle, tmp_path / "nowhere.pem")
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    with pytest.raises(UserError, match="cannot sign with"):
        sign_bundle(copy, public)
    assert not (copy / "bundle.sig").exists()
