"""Files and folders appear whole or not at all, never over somebody else's, and as readable as the user wants."""

from __future__ import annotations

import multiprocessing
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from lavit_edge.checkpoint import save_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError
from lavit_edge.files import claimed, new_folder, staged
from lavit_edge.train.state import save_state


def put(
    target: Path, name: str, content: str, replaces: tuple[str, ...] = (), meanwhile: Callable[[], object] = lambda: None
) -> None:
    with new_folder(target, replaces) as folder:
        (folder / name).write_text(content)
        meanwhile()


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_new_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def fail_midway() -> None:
        with new_folder(target) as folder:
            (folder / "a").write_text("a")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fail_midway()
    assert list(tmp_path.iterdir()) == []
    with new_folder(target) as folder:
        (folder / "a").write_text("a")
        assert not target.exists()
    assert files(tmp_path) == {"out/a": "a"}


def test_new_folder_replaces_only_when_told_and_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(UserError, match="already exists and is not empty"), new_folder(target):
        pass
    with pytest.raises(RuntimeError), new_folder(target, ("old",)):
        raise RuntimeError
    assert (target / "old").read_text() == "old"
    with new_folder(target, ("old", "new")) as folder:
        (folder / "new").write_text("new")
        assert (target / "old").exists()
    assert files(tmp_path) == {"out/new": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_not_replaced_stays(tmp_path: Path) -> None:
    target = tmp_path / "out"
    put(target, "model", "1")
    (target / "notes.txt").write_text("mine")
    (target / "plots").mkdir()
    (target / "plots" / "a").write_text("mine too")
    put(target, "model", "2", replaces=("model",))
    assert files(tmp_path) == {"out/model": "2", "out/notes.txt": "mine", "out/plots/a": "mine too"}


@pytest.mark.parametrize("name", ["model", "notes.txt"])
@pytest.mark.parametrize("replaces", [(), ("model",)])
def test_a_place_that_was_taken_meanwhile_is_left_alone_and_the_result_kept(
    tmp_path: Path, name: str, replaces: tuple[str, ...]
) -> None:
    target = tmp_path / "out"

    def take() -> None:
        target.mkdir()
        (target / name).write_text("theirs")

    with pytest.raises(UserError, match=r"was taken or changed meanwhile .*; the result is in") as caught:
        put(target, "model", "ours", replaces, take)
    spare = Path(str(caught.value).rpartition(" ")[2])
    assert spare.parent == tmp_path
    assert files(target) == {name: "theirs"}
    assert files(spare) == {"model": "ours"}
    assert sorted(tmp_path.iterdir()) == sorted([target, spare])


@pytest.mark.parametrize("by", ["another run", "hand"])
def test_a_result_that_changed_meanwhile_is_not_replaced(tmp_path: Path, by: str) -> None:
    target = tmp_path / "out"
    put(target, "model", "old")

    def change() -> None:
        if by == "hand":
            (target / "model").write_text("theirs")
        else:
            put(target, "model", "theirs", ("model",))

    with pytest.raises(UserError, match="the result is in"):
        put(target, "model", "ours", ("model",), change)
    assert files(target) == {"model": "theirs"}
    assert sorted(files(tmp_path).values()) == ["ours", "theirs"]


def race(target: Path, number: int, replaces: tuple[str, ...], start: multiprocessing.synchronize.Barrier) -> None:
    with suppress(UserError), new_folder(target, replaces) as folder:
        (folder / "model").write_text(str(number))
        start.wait(60)


@pytest.mark.parametrize("replaces", [(), ("model",)])
def test_of_many_processes_none_loses_its_result(tmp_path: Path, replaces: tuple[str, ...]) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(8)
    processes = [context.Process(target=race, args=(tmp_path / "out", number, replaces, start)) for number in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    assert (tmp_path / "out" / "model").is_file()
    assert sorted(files(tmp_path).values()) == [str(number) for number in range(8)]


def hold(folder: Path, begun: multiprocessing.synchronize.Event, end: multiprocessing.synchronize.Event) -> None:
    with claimed(folder):
        begun.set()
        end.wait(60)


@pytest.mark.parametrize("killed", [False, True])
def test_a_claim_lasts_as_long_as_its_process(tmp_path: Path, killed: bool) -> None:
    context = multiprocessing.get_context("fork")
    begun, end = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, begun, end))
    other.start()
    assert begun.wait(60)
    with pytest.raises(UserError, match="another process is writing to"), claimed(tmp_path):
        pass
    other.kill() if killed else end.set()
    other.join()
    with claimed(tmp_path):
        (tmp_path / "result").write_text("")
    assert [file.name for file in tmp_path.iterdir()] == ["result"]


def test_new_folder_below_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to") as caught, new_folder(tmp_path / "file" / "out"):
        pass
    assert "\n" not in str(caught.value)


def test_staged_replaces_a_folder(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with staged(tmp_path / "model.mlpackage") as path:
            path.mkdir()
            (path / content).write_text(content)
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")] == ["model.mlpackage", "model.mlpackage/new"]


@pytest.fixture(params=[0o022, 0o002, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


def test_what_appears_follows_the_umask(tmp_path: Path, umask: int) -> None:
    contract = InputContract(size=32, labels=("a", "b"))
    save_checkpoint(tmp_path / "new", {"a": torch.zeros(1)}, model={}, contract=contract, card="", int8={"a": torch.zeros(1)})
    with staged(tmp_path / "model.mlpackage") as package:
        package.mkdir(mode=0o700)
        (package / "weight.bin").touch(mode=0o600)
    save_state(tmp_path / "state.safetensors", {"a": torch.zeros(1)}, {})
    found = {**modes(tmp_path / "new"), **modes(tmp_path / "model.mlpackage"), **modes(tmp_path / "state.safetensors")}
    assert set(found) == {
        "state.safetensors",
        "new",
        "model.safetensors",
        "int8.safetensors",
        "config.json",
        "README.md",
        "model.mlpackage",
        "weight.bin",
    }
    folders = ("new", "model.mlpackage")
    assert found == {name: (0o777 if name in folders else 0o666) & ~umask for name in found}
