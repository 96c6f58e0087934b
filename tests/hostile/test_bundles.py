from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavit_edge.artifact.bundle import artifact_sha256, open_bundle
from lavit_edge.verify import main as verify

Damage = Callable[[Path], object]
DEEP = "[" * 100_000


def edit(change: Callable[[Any], object]) -> Damage:
    def damage(bundle: Path) -> None:
        manifest = json.loads((bundle / "manifest.json").read_text())
        change(manifest)
        (bundle / "manifest.json").write_text(json.dumps(manifest))

    return damage


def named(name: str) -> Damage:
    """An artifact of that name whose digest is right, wherever it is."""

    def damage(bundle: Path) -> None:
        target = bundle / name
        digest = artifact_sha256(target) if len(name) < 100 and "\0" not in name and target.is_file() else "0" * 64
        edit(lambda found: found["artifacts"].update({name: {"sha256": digest, "bytes": 1}}))(bundle)

    return damage


def text(content: str | bytes) -> Damage:
    return lambda bundle: (bundle / "manifest.json").write_bytes(content if isinstance(content, bytes) else content.encode())


def becomes(name: str, make: Callable[[Path], object]) -> Damage:
    def damage(bundle: Path) -> None:
        path = bundle / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        make(path)

    return damage


def link(file: Path) -> None:
    """To the same content elsewhere: the digest is right."""
    file.symlink_to(file.parent.parent / "elsewhere.onnx")


def moved_behind_a_link(bundle: Path) -> None:
    shutil.move(bundle / "model.onnx", bundle.parent / "elsewhere.onnx")
    link(bundle / "model.onnx")


def weights_behind_a_link(bundle: Path) -> None:
    weights = bundle / "model.mlpackage" / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    shutil.move(weights, bundle.parent / "weight.bin")
    weights.symlink_to(bundle.parent / "weight.bin")


def flip(name: str) -> Damage:
    def damage(bundle: Path) -> None:
        data = bytearray((bundle / name).read_bytes())
        data[len(data) * 2 // 3] ^= 1
        (bundle / name).write_bytes(data)

    return damage


def loop(file: Path) -> None:
    file.symlink_to(file)


def field_twice(bundle: Path) -> None:
    file = bundle / "manifest.json"
    file.write_text('{"precision":"float",' + file.read_text()[1:])


def unknown_kind(bundle: Path) -> None:
    shutil.copy(bundle / "model.onnx", bundle / "program.pt2")
    named("program.pt2")(bundle)


def exchanged(bundle: Path) -> None:
    for old, new in (("model.pte", "x"), ("model.onnx", "model.pte"), ("x", "model.onnx")):
        os.rename(bundle / old, bundle / new)


DAMAGES: dict[str, Damage] = {
    "manifest empty": text(""),
    "manifest cut": lambda bundle: (bundle / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes()[:-2]),
    "manifest nested": text(DEEP),
    "manifest not UTF-8": text(b"\xff\xfe\x00"),
    "manifest a list": text("[]"),
    "manifest of another format": text('{"format": "lavit_edge.bundle/99"}'),
    "manifest with a format alone": text('{"format": "lavit_edge.bundle/1"}'),
    "manifest with a field twice": field_twice,
    "manifest of 20 MB": text(json.dumps("x" * 20_000_000)),
    "manifest a pipe": becomes("manifest.json", os.mkfifo),
    "manifest a folder": becomes("manifest.json", Path.mkdir),
    "manifest a link to itself": becomes("manifest.json", loop),
    "precision a number": edit(lambda found: found.update(precision=8)),
    "no precision": edit(lambda found: found.pop("precision")),
    "precision unknown": edit(lambda found: found.update(precision="int4")),
    "artifacts in a list": edit(lambda found: found.update(artifacts=list(found["artifacts"]))),
    "no artifacts": edit(lambda found: found.update(artifacts={})),
    "an artifact without a digest": edit(lambda found: found["artifacts"].update({"model.onnx": {}})),
    "an artifact's digest a number": edit(lambda found: found["artifacts"].update({"model.onnx": {"sha256": 1}})),
    "an artifact null": edit(lambda found: found["artifacts"].update({"model.onnx": None})),
    "targets a list": edit(lambda found: found.update(targets=[])),
    "targets without options": edit(lambda found: found.update(targets={"executorch": {}})),
    "checkpoint null": edit(lambda found: found.update(checkpoint=None)),
    "checkpoint's path a number": edit(lambda found: found.update(checkpoint_path=1)),
    "checkpoint's path of two lines": edit(lambda found: found.update(checkpoint_path="a\nb\x1b[2J")),
    "checkpoint's path with a NUL": edit(lambda found: found.update(checkpoint_path="a\0b")),
    "checkpoint's path too long": edit(lambda found: found.update(checkpoint_path="x" * 100_000)),
    "checkpoint of other hashes": edit(lambda found: found["checkpoint"].update(sha256={})),
    "an artifact up the folders": named("../../../../../../../../etc/passwd"),
    "an artifact beside the bundle": named("../bundle/model.onnx"),
    "an artifact by its whole path": named("/etc/passwd"),
    "an artifact in a folder": named("model.mlpackage/Manifest.json"),
    "the bundle itself": named("."),
    "the folder above": named(".."),
    "an artifact without a name": named(""),
    "an artifact of two lines": named("model\n.onnx"),
    "an artifact that colours": named("\x1b[31mmodel.onnx"),
    "an artifact with a NUL": named("model\0.onnx"),
    "an artifact with a long name": named("x" * 100_000),
    "an artifact of an unknown kind": unknown_kind,
    "a flipped bit in the .pte": flip("model.pte"),
    "a flipped bit in the .onnx": flip("model.onnx"),
    "a flipped bit in the .ort": flip("model.ort"),
    "a flipped bit in the program": flip("model.mlpackage/Data/com.apple.CoreML/model.mlmodel"),
    "a flipped bit in the weights": flip("model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"),
    "a missing artifact": lambda bundle: (bundle / "model.pte").unlink(),
    "a file more in the package": lambda bundle: (bundle / "model.mlpackage" / "more").write_text(""),
    "two artifacts exchanged": exchanged,
    "a folder for an artifact": becomes("model.onnx", Path.mkdir),
    "a pipe for an artifact": becomes("model.onnx", os.mkfifo),
    "a link for an artifact": moved_behind_a_link,
    "a link in the package": weights_behind_a_link,
    "a link to itself in the package": lambda bundle: loop(bundle / "model.mlpackage" / "more"),
    "a pipe in the package": lambda bundle: os.mkfifo(bundle / "model.mlpackage" / "more"),
    "a file for the package": becomes("model.mlpackage", lambda file: file.write_text("")),
    "a name of two lines in the package": lambda bundle: (bundle / "model.mlpackage" / "a\nb").write_text(""),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_bundle(damage: Damage, bundle: Path, elsewhere: Any) -> None:
    damage(bundle)
    elsewhere.refused(lambda: verify([str(bundle)]))


@pytest.mark.parametrize("path", ["nothing", "model.onnx", "manifest.json", "model.mlpackage", "x\ny", "x" * 5000])
def test_what_is_no_bundle(path: str, bundle: Path, elsewhere: Any) -> None:
    elsewhere.refused(lambda: verify([str(bundle / path)]))


def test_the_healthy_one_is_taken(bundle: Path) -> None:
    assert {path.name for path in open_bundle(bundle).runnable} == {"model.pte", "model.onnx", "model.ort", "model.mlpackage"}
