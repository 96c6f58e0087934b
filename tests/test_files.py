"""Files and folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from lavit_edge.errors import UserError
from lavit_edge.files import new_folder, staged


def test_new_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def fail_midway() -> None:
        with new_folder(target, replace=False) as folder:
            (folder / "a").write_text("a")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fail_midway()
    assert list(tmp_path.iterdir()) == []
    with new_folder(target, replace=False) as folder:
        (folder / "a").write_text("a")
        assert not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (target / "a").read_text() == "a"


def test_new_folder_replaces_only_when_told_and_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(UserError, match="already exists and is not empty"), new_folder(target, replace=False):
        pass
    with pytest.raises(RuntimeError), new_folder(target, replace=True):
        raise RuntimeError
    assert (target / "old").read_text() == "old"
    with new_folder(target, replace=True) as folder:
        (folder / "new").write_text("new")
        assert (target / "old").exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_new_folder_below_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to") as caught, new_folder(tmp_path / "file" / "out", replace=False):
        pass
    assert "\n" not in str(caught.value)


def test_staged_replaces_a_folder(tmp_path) -> None:
    for content in ("old", "new"):
        with staged(tmp_path / "model.mlpackage") as path:
            path.mkdir()
            (path / content).write_text(content)
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")] == ["model.mlpackage", "model.mlpackage/new"]
