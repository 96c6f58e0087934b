"""``.aimodel`` folders: what is beside the program, and programs that Apple's own parser gets."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("coreai_torch")
from lavit_edge.artifact.aimodel import HASH, LARGEST, METADATA, PROGRAM, operations
from lavit_edge.artifact.runners import open_artifact, read_entries
from lavit_edge.benchmark.host import check_runs_here
from lavit_edge.doctor.smallest import CONTRACT, smallest
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import TARGETS
from lavit_edge.verdict.read import read

Damage = Callable[[Path], object]
CUSTOM = "creatorDefinedMetadata"


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("healthy") / "model.aimodel"
    program = smallest().program
    TARGETS["coreai"].export(program, make_payload(program, CONTRACT, {}, 1.0), path)
    return path


@pytest.fixture
def model(healthy: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(healthy, tmp_path / "model.aimodel"))


def program(change: Callable[[bytes], bytes]) -> Damage:
    """Another program whose hash is right, so that it reaches the native parser."""

    def damage(model: Path) -> None:
        data = change((model / PROGRAM).read_bytes())
        (model / PROGRAM).write_bytes(data)
        (model / HASH).write_bytes(hashlib.sha256(data).digest())

    return damage


def metadata(change: Callable[[Any], object]) -> Damage:
    def damage(model: Path) -> None:
        found = json.loads((model / METADATA).read_text())
        change(found)
        (model / METADATA).write_text(json.dumps(found))

    return damage


def text(content: str) -> Damage:
    return lambda model: (model / METADATA).write_text(content)


def becomes(name: str, make: Callable[[Path], object]) -> Damage:
    def damage(model: Path) -> None:
        (model / name).unlink()
        make(model / name)

    return damage


def huge(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(LARGEST + 1)  # a hole: no disk is taken


FOLDERS: dict[str, Damage] = {
    "a program that is cut": lambda model: (model / PROGRAM).write_bytes((model / PROGRAM).read_bytes()[:1000]),
    "another program": lambda model: (model / PROGRAM).write_bytes(b"ML\xefR" + bytes(100)),
    "no program": lambda model: (model / PROGRAM).unlink(),
    "a program of gigabytes": becomes(PROGRAM, huge),
    "a program that is a pipe": becomes(PROGRAM, os.mkfifo),
    "a program behind a link": becomes(PROGRAM, lambda file: file.symlink_to("/etc/passwd")),
    "a wrong hash": lambda model: (model / HASH).write_bytes(bytes(32)),
    "no hash": lambda model: (model / HASH).write_bytes(b""),
    "a hash that is longer": lambda model: (model / HASH).write_bytes((model / HASH).read_bytes() + b"\0"),
    "a foreign file": lambda model: (model / "evil\nname").write_text(""),
    "a foreign folder": lambda model: (model / "more").mkdir(),
    "a foreign link": lambda model: (model / "more").symlink_to(model),
    "no metadata": lambda model: (model / METADATA).unlink(),
    "a file": lambda model: [shutil.rmtree(model), model.write_text("")],
    "an empty folder": lambda model: [shutil.rmtree(model), model.mkdir()],
    "a link to itself": lambda model: [shutil.rmtree(model), model.symlink_to(model)],
    "nothing": shutil.rmtree,
}


@pytest.mark.parametrize("damage", FOLDERS.values(), ids=FOLDERS)
def test_a_folder(damage: Damage, model: Path, elsewhere: Any) -> None:
    damage(model)
    for read_it in (read_entries, open_artifact, read):
        elsewhere.refused(lambda read_it=read_it: read_it(model))


METADATAS: dict[str, Damage] = {
    "empty": text(""),
    "no JSON": text("evil\n"),
    "nested": text("[" * 100_000),
    "a list": text("[]"),
    "huge": text('{"a": "' + "x" * (17 << 20) + '"}'),
    "not UTF-8": lambda model: (model / METADATA).write_bytes(b"\xff\xfe{}"),
    "entries a list": metadata(lambda found: found.update({CUSTOM: []})),
    "entries numbers": metadata(lambda found: found.update({CUSTOM: {"org.lavit_edge.contract": 1}})),
}


@pytest.mark.parametrize("damage", METADATAS.values(), ids=METADATAS)
def test_metadata(damage: Damage, model: Path, elsewhere: Any) -> None:
    damage(model)
    elsewhere.refused(lambda: read_entries(model))


PROGRAMS: dict[str, Damage] = {
    "empty": program(lambda data: b""),
    "cut in the header": program(lambda data: data[:6]),
    "cut in half": program(lambda data: data[: len(data) // 2]),
    "cut before the end": program(lambda data: data[:-1]),
    "of a newer compiler": program(lambda data: data[:4] + b"\x7f" + data[5:]),  # the version of MLIR's bytecode
    "noise behind the magic": program(lambda data: data[:4] + np.random.default_rng(0).bytes(5000)),
}


@pytest.mark.parametrize("damage", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program(damage: Damage, model: Path, elsewhere: Any) -> None:
    damage(model)
    elsewhere.refused(lambda: open_artifact(model))


def test_a_program_with_noise_inside(model: Path, elsewhere: Any) -> None:
    """Its operations, its types, its constants: some of it may be read and compute something else, which the digest sees."""
    whole = (model / PROGRAM).read_bytes()
    random = np.random.default_rng(1)
    for part in (0.02, 0.1, 0.9, 0.99):
        at = int(part * len(whole))
        program(lambda _, at=at: whole[:at] + random.bytes(16) + whole[at + 16 :])(model)
        elsewhere.survives(lambda: operations(model))


def test_a_device_that_reports_no_latency(model: Path, refused: Any) -> None:
    refused(lambda: check_runs_here(model))


def test_the_healthy_one_is_taken(model: Path, elsewhere: Any) -> None:
    assert elsewhere.run(lambda: (read_entries(model), open_artifact(model), read(model))) == (0, "")
