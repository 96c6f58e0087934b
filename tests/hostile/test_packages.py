"""``.mlpackage`` folders and the ML programs in them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coremltools.proto import Model_pb2

from lavit_edge.artifact.mlprogram import MLProgram

Damage = Callable[[Path], object]
DATA = Path("Data") / "com.apple.CoreML"
PROGRAM, WEIGHTS, MANIFEST = DATA / "model.mlmodel", DATA / "weights" / "weight.bin", Path("Manifest.json")
DEEP = "[" * 100_000


def cut(name: Path, where: Callable[[bytes], int]) -> Damage:
    def damage(package: Path) -> None:
        data = (package / name).read_bytes()
        (package / name).write_bytes(data[: where(data)])

    return damage


def patch(name: Path, at: int, new: bytes) -> Damage:
    def damage(package: Path) -> None:
        data = (package / name).read_bytes()
        (package / name).write_bytes(data[:at] + new + data[at + len(new) :])

    return damage


def model(change: Callable[[Any], object]) -> Damage:
    def damage(package: Path) -> None:
        spec = Model_pb2.Model()
        spec.ParseFromString((package / PROGRAM).read_bytes())
        change(spec)
        (package / PROGRAM).write_bytes(spec.SerializeToString())

    return damage


def block(change: Callable[[Any], object]) -> Damage:
    return model(lambda spec: change(spec.mlProgram.functions["main"].block_specializations["CoreML7"]))


def operation(type_: str, change: Callable[[Any], object]) -> Damage:
    """The first operation of a type."""
    return block(lambda found: change(next(o for o in found.operations if o.type == type_)))


def constant(name_end: str, change: Callable[[Any], object]) -> Damage:
    """The first constant whose name ends so."""

    def find(found: Any) -> None:
        change(next(o for o in found.operations if o.type == "const" and o.outputs[0].name.endswith(name_end)).attributes["val"])

    return block(find)


def stored(change: Callable[[Any], object]) -> Damage:
    """The first value that lies in the weights file."""

    def find(found: Any) -> None:
        values = (value for o in found.operations for value in o.attributes.values())
        change(next(value for value in values if value.WhichOneof("value") == "blobFileValue"))

    return block(find)


def in_file(name: str) -> Damage:
    return stored(lambda value: setattr(value.blobFileValue, "fileName", name))


def manifest(change: Callable[[Any], object]) -> Damage:
    def damage(package: Path) -> None:
        found = json.loads((package / MANIFEST).read_text())
        change(found)
        (package / MANIFEST).write_text(json.dumps(found))

    return damage


def paths(path: Any) -> Damage:
    return manifest(lambda found: [entry.update(path=path) for entry in found["itemInfoEntries"].values()])


def becomes(name: Path, make: Callable[[Path], object]) -> Damage:
    def damage(package: Path) -> None:
        (package / name).unlink()
        make(package / name)

    return damage


def output_type(operation: Any) -> Any:
    return operation.outputs[0].type.tensorType


def dimension(operation: Any, size: int) -> None:
    output_type(operation).dimensions[-1].constant.size = size


def image(spec: Any) -> Any:
    return spec.description.input[0].type.imageType


def name_of_two_lines(found: Any) -> None:
    found.operations[-1].type = "evil\nerror: \x1b[2J"


def cyclic(found: Any) -> None:
    first = next(operation for operation in found.operations if operation.type == "linear")
    first.inputs["x"].arguments[0].name = first.outputs[0].name


def twice(found: Any) -> None:
    """The last operation once more: its output has the name of another's."""
    found.operations.add().CopyFrom(found.operations[-2])


DAMAGES: dict[str, Damage] = {
    "program empty": cut(PROGRAM, lambda data: 0),
    "program cut in the first field": cut(PROGRAM, lambda data: 1),
    "program cut in the description": cut(PROGRAM, lambda data: 40),
    "program cut in half": cut(PROGRAM, lambda data: len(data) // 2),
    "program cut before the end": cut(PROGRAM, lambda data: len(data) - 1),
    "program's first bytes ones": patch(PROGRAM, 0, b"\xff" * 16),
    "program's first length huge": patch(PROGRAM, 0, b"\x12\xff\xff\xff\xff\x0f"),
    "program text": lambda package: (package / PROGRAM).write_text("version https://git-lfs.github.com/spec/v1\n"),
    "program missing": lambda package: (package / PROGRAM).unlink(),
    "program a folder": becomes(PROGRAM, Path.mkdir),
    "program a pipe": becomes(PROGRAM, os.mkfifo),
    "program behind a link": becomes(PROGRAM, lambda file: file.symlink_to("/etc/passwd")),
    "weights empty": cut(WEIGHTS, lambda data: 0),
    "weights cut in the header": cut(WEIGHTS, lambda data: 40),
    "weights cut in the data": cut(WEIGHTS, lambda data: len(data) // 2),
    "weights cut before the end": cut(WEIGHTS, lambda data: len(data) - 1 - 63),
    "weights' magic": patch(WEIGHTS, 64, b"\0" * 4),
    "weights' size huge": patch(WEIGHTS, 72, b"\xff" * 8),
    "weights' offset huge": patch(WEIGHTS, 80, b"\xff" * 8),
    "weights missing": lambda package: shutil.rmtree(package / DATA / "weights"),
    "weights a pipe": becomes(WEIGHTS, os.mkfifo),
    "manifest empty": lambda package: (package / MANIFEST).write_text(""),
    "manifest nested": lambda package: (package / MANIFEST).write_text(DEEP),
    "manifest nested inside": lambda package: (package / MANIFEST).write_text('{"itemInfoEntries":' + DEEP + "]" * 100_000 + "}"),
    "manifest a list": lambda package: (package / MANIFEST).write_text("[]"),
    "manifest missing": lambda package: (package / MANIFEST).unlink(),
    "manifest a pipe": becomes(MANIFEST, os.mkfifo),
    "manifest without a root": manifest(lambda found: found.pop("rootModelIdentifier")),
    "manifest of another root": manifest(lambda found: found.update(rootModelIdentifier="evil")),
    "manifest without entries": manifest(lambda found: found.update(itemInfoEntries={})),
    "manifest's entries numbers": manifest(lambda found: found.update(itemInfoEntries={"a": 1})),
    "manifest's version unknown": manifest(lambda found: found.update(fileFormatVersion="99")),
    "a path up the folders": paths("../../../../../../etc/passwd"),
    "a whole path": paths("/etc/passwd"),
    "a path that is a number": paths(1),
    "a path with a NUL": paths("a\0b"),
    "a path of two lines": paths("a\nb"),
    "no program": model(lambda spec: spec.ClearField("mlProgram")),
    "another kind of model": model(lambda spec: spec.neuralNetwork.layers.add()),
    "no function": model(lambda spec: spec.mlProgram.functions.clear()),
    "two functions": model(lambda spec: spec.mlProgram.functions["other"].CopyFrom(spec.mlProgram.functions["main"])),
    "another operation set": model(lambda spec: setattr(spec.mlProgram.functions["main"], "opset", "CoreML99")),
    "no block": model(lambda spec: spec.mlProgram.functions["main"].block_specializations.clear()),
    "no inputs": model(lambda spec: spec.description.ClearField("input")),
    "no outputs": model(lambda spec: spec.description.ClearField("output")),
    "an input of another name": model(lambda spec: setattr(spec.description.input[0], "name", "other\n")),
    "an input of a gigapixel": model(lambda spec: setattr(image(spec), "width", 2**40)),
    "an input without pixels": model(lambda spec: setattr(image(spec), "width", 0)),
    "an input of negative width": model(lambda spec: setattr(image(spec), "width", -64)),
    "an input in grey": model(lambda spec: setattr(image(spec), "colorSpace", 10)),
    "an input of another size": model(lambda spec: setattr(image(spec), "width", 96)),
    "an operation that is none": block(name_of_two_lines),
    "an operation too few": block(lambda found: found.operations.pop(len(found.operations) // 2)),
    "operations in reverse": block(lambda found: [found.operations.insert(0, found.operations.pop()) for _ in range(40)]),
    "a loop": block(cyclic),
    "an output twice": block(twice),
    "outputs of other names": block(lambda found: found.outputs.__setitem__(0, "other")),
    "an input too few": operation("linear", lambda found: found.inputs.pop("x")),
    "an input too many": operation("linear", lambda found: found.inputs["evil"].CopyFrom(found.inputs["x"])),
    "an input without a value": operation("linear", lambda found: found.inputs["x"].ClearField("arguments")),
    "an input of another kind": operation("linear", lambda found: found.inputs["weight"].CopyFrom(found.inputs["x"])),
    "control flow": operation("linear", lambda found: found.blocks.add()),
    "no output": operation("linear", lambda found: found.ClearField("outputs")),
    "an output of another size": operation("linear", lambda found: dimension(found, 3)),
    "an output of terabytes": operation("linear", lambda found: dimension(found, 2**40)),
    "an output of negative size": operation("linear", lambda found: dimension(found, 2**64 - 1)),
    "an output of an unknown type": operation("linear", lambda found: setattr(output_type(found), "dataType", 9999)),
    "an output of another type": operation("linear", lambda found: setattr(output_type(found), "dataType", 21)),
    "a value far in the weights": stored(lambda value: setattr(value.blobFileValue, "offset", 2**62)),
    "a value between others": stored(lambda value: setattr(value.blobFileValue, "offset", 65)),
    "a value in another file": in_file("@model_path/../../../../../etc/passwd"),
    "a value in a whole path": in_file("/etc/passwd"),
    "a value of a huge shape": stored(lambda value: value.type.tensorType.dimensions.add().constant.__setattr__("size", 2**40)),
    "a value of an unknown type": stored(lambda value: setattr(value.type.tensorType, "dataType", 9999)),
    "a value that is none": stored(lambda value: value.ClearField("blobFileValue")),
}  # fmt: skip


@pytest.fixture
def package(base: Any, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(base.bundle / "model.mlpackage", tmp_path / "model.mlpackage"))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_package(damage: Damage, package: Path, elsewhere: Any) -> None:
    damage(package)
    elsewhere.refused(lambda: MLProgram(package))


def archive(path: Path) -> None:
    shutil.make_archive(str(path), "zip", path)
    shutil.rmtree(path)
    os.rename(f"{path}.zip", path)


PLACES: dict[str, Damage] = {
    "a zip": archive,
    "a file": lambda path: [shutil.rmtree(path), path.write_text("")],
    "a pipe": lambda path: [shutil.rmtree(path), os.mkfifo(path)],
    "nothing": shutil.rmtree,
    "an empty folder": lambda path: [shutil.rmtree(path), path.mkdir()],
    "a link to itself": lambda path: [shutil.rmtree(path), path.symlink_to(path)],
}


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
def test_the_place_of_a_package(make: Damage, package: Path, elsewhere: Any) -> None:
    make(package)
    elsewhere.refused(lambda: MLProgram(package))


def test_the_healthy_one_is_taken(package: Path, elsewhere: Any) -> None:
    assert elsewhere.run(lambda: MLProgram(package)) == (0, "")
