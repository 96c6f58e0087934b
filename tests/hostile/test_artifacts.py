"""``.pte``, ``.onnx``, ``.ort`` and ``.tflite`` opened by themselves, without a manifest whose digest would tell."""

from __future__ import annotations

import importlib
import io
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lavit_edge.artifact.runners import open_artifact

KINDS = ("pte", "onnx", "ort", "tflite")
PICTURE = np.zeros((64, 64, 3), np.uint8)
Change = Callable[[bytes], bytes]


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """Once, before the forks; none of them starts a thread by being imported."""
    for name in (
        "executorch.runtime",
        "executorch.extension.pybindings.portable_lib",
        "onnxruntime",
        "ai_edge_litert.interpreter",
    ):
        importlib.import_module(name)


def use(path: Path) -> int:
    """Opens an artifact and runs a picture through it."""
    assert open_artifact(path, threads=1)(PICTURE).shape == (10,)
    return 0


def archive(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model", data + bytes(50_000_000))
    return stream.getvalue()


BYTES: dict[str, Change] = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "four bytes": lambda data: data[:4],
    "eight bytes": lambda data: data[:8],
    "the first 32 bytes": lambda data: data[:32],
    "the first half": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "ones": lambda data: b"\xff" * len(data),
    "its root offset beyond the end": lambda data: struct.pack("<I", 0x7FFFFFF0) + data[4:],
    "its first 64 bytes ones": lambda data: b"\xff" * 64 + data[64:],
    "in a zip": archive,
    "text": lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", BYTES.values(), ids=BYTES)
def test_the_bytes_of_an_artifact(change: Change, kind: str, base: Any, tmp_path: Path, elsewhere: Any) -> None:
    file = tmp_path / f"model.{kind}"
    file.write_bytes(change((base.bundle / f"model.{kind}").read_bytes()))
    assert str(file) in elsewhere.refused(lambda: use(file))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.7, 0.95, 0.999])
def test_an_artifact_cut_short(share: float, kind: str, base: Any, tmp_path: Path, elsewhere: Any) -> None:
    file, data = tmp_path / f"model.{kind}", (base.bundle / f"model.{kind}").read_bytes()
    file.write_bytes(data[: int(share * (len(data) - 1))])
    elsewhere.refused(lambda: use(file))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(8))
def test_flipped_bytes_are_no_crash(seed: int, kind: str, base: Any, tmp_path: Path, elsewhere: Any) -> None:
    rng, data = np.random.default_rng(seed), bytearray((base.bundle / f"model.{kind}").read_bytes())
    for place in rng.integers(0, len(data) if seed % 2 else 4096, 1 + seed):
        data[place] ^= rng.integers(1, 256)
    file = tmp_path / f"model.{kind}"
    file.write_bytes(data)
    elsewhere.survives(lambda: use(file))


# ONNX Runtime looks at the bytes and takes its own two under either name
@pytest.mark.parametrize(
    ("content", "name"), [("pte", "onnx"), ("pte", "ort"), ("onnx", "pte"), ("ort", "pte"), ("pte", "tflite"), ("tflite", "ort")]
)
def test_one_kind_under_the_name_of_another(content: str, name: str, base: Any, tmp_path: Path, elsewhere: Any) -> None:
    shutil.copy(base.bundle / f"model.{content}", tmp_path / f"model.{name}")
    elsewhere.refused(lambda: use(tmp_path / f"model.{name}"))


def sparse(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(1 << 40)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, sparse, lambda file: file.symlink_to(file)], ids=["folder", "pipe", "TB", "loop"]
)
def test_the_place_of_an_artifact(make: Callable[[Path], object], kind: str, tmp_path: Path, elsewhere: Any) -> None:
    make(tmp_path / f"model.{kind}")
    elsewhere.refused(lambda: use(tmp_path / f"model.{kind}"))


@pytest.mark.parametrize("name", ["model.pt2", "model", "model.lite", "two\nlines\x1b[2J.pte", "none.onnx", "x" * 5000 + ".ort"])
def test_a_name_that_is_no_artifact(name: str, base: Any, tmp_path: Path, elsewhere: Any) -> None:
    if len(name) < 100 and "none" not in name:
        (tmp_path / name).write_bytes(archive(b""))
    elsewhere.refused(lambda: use(tmp_path / name))


def graph(change: Callable[[onnx.ModelProto], object]) -> Callable[[Path, Path], None]:
    def write(healthy: Path, file: Path) -> None:
        model = onnx.load(healthy)
        change(model)
        file.write_bytes(model.SerializeToString())

    return write


def external(location: str) -> Callable[[Path, Path], None]:
    """The first weight in another file, which is there and holds the right bytes."""

    def write(healthy: Path, file: Path) -> None:
        model = onnx.load(healthy)
        tensor = next(tensor for tensor in model.graph.initializer if len(tensor.raw_data) > 100)
        (file.parent / "weights.bin").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location.format(folder=file.parent))
        file.write_bytes(model.SerializeToString())

    return write


def rename(place: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        value = getattr(model.graph, place)[0]
        for node in model.graph.node:
            names = node.input if place == "input" else node.output
            names[:] = ["other" if name == value.name else name for name in names]
        value.name = "other"

    return change


def nested(model: onnx.ModelProto) -> None:
    """If in If in If; protobuf stops at 100 messages."""
    inner = helper.make_graph([helper.make_node("Identity", ["image"], ["y"])], "g", [], [])
    for _ in range(20):
        inner = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=inner)], "g", [], [])
    model.graph.CopyFrom(inner)


def deep(healthy: Path, file: Path) -> None:
    """A message in a message in a message, 10,000 deep, which only a writer by hand can make."""
    data = b""
    for _ in range(10_000):
        # ModelProto.graph and GraphProto.node are fields 7 and 1, NodeProto.attribute 5, AttributeProto.g 6
        data = b"".join((b"\x32", varint(len(data)), data))
        data = b"".join((b"\x2a", varint(len(data)), data))
        data = b"".join((b"\x0a", varint(len(data)), data))
    file.write_bytes(b"\x3a" + varint(len(data)) + data)


def varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def huge(model: onnx.ModelProto) -> None:
    """A constant of 4 TB, in a few bytes."""
    shape = numpy_helper.from_array(np.array([1 << 40], np.int64), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["huge"]))
    model.graph.node.insert(1, helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0))
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Add", ["before", "sum"], ["logits"]))


def initializer(change: Callable[[TensorProto], object]) -> Callable[[onnx.ModelProto], None]:
    return lambda model: change(next(tensor for tensor in model.graph.initializer if len(tensor.raw_data) > 100)) and None


MODELS: dict[str, Callable[[Path, Path], None]] = {
    "weights in a file beside it": external("weights.bin"),
    "weights up the folders": external("../../../../../../../../../../etc/passwd"),
    "weights by their whole path": external("{folder}/weights.bin"),
    "weights in a device": external("/dev/zero"),
    "weights in a file of two lines": external("a\nb"),
    "no graph": graph(lambda model: model.ClearField("graph")),
    "no nodes": graph(lambda model: model.graph.ClearField("node")),
    "no opset": graph(lambda model: model.ClearField("opset_import")),
    "opset of the future": graph(lambda model: setattr(model.opset_import[0], "version", 9999)),
    "an operator that is none": graph(lambda model: setattr(model.graph.node[0], "op_type", "Evil\nerror")),
    "an operator of a plug-in": graph(lambda model: setattr(model.graph.node[0], "domain", "org.evil")),
    "a missing value": graph(lambda model: model.graph.node[-1].input.__setitem__(0, "nothing")),
    "a loop": graph(lambda model: model.graph.node[0].input.__setitem__(0, model.graph.node[-1].output[0])),
    "another name of the input": graph(rename("input")),
    "another name of the output": graph(rename("output")),
    "an input of int64": graph(lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", TensorProto.INT64)),
    "an input of another size": graph(lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 96)),
    "a weight with too few bytes": graph(initializer(lambda tensor: setattr(tensor, "raw_data", tensor.raw_data[:-1]))),
    "a weight of a negative size": graph(initializer(lambda tensor: tensor.dims.__setitem__(0, -1))),
    "a weight of a huge size": graph(initializer(lambda tensor: tensor.dims.__setitem__(0, 1 << 60))),
    "a weight of an unknown type": graph(initializer(lambda tensor: setattr(tensor, "data_type", 99))),
    "a constant of 4 TB": graph(huge),
    "graphs in graphs": graph(nested),
    "graphs in graphs without an end": deep,
}


@pytest.mark.parametrize("write", MODELS.values(), ids=MODELS)
def test_an_onnx_model(write: Callable[[Path, Path], None], base: Any, tmp_path: Path, elsewhere: Any) -> None:
    write(base.bundle / "model.onnx", tmp_path / "model.onnx")
    elsewhere.refused(lambda: use(tmp_path / "model.onnx"))


def test_the_healthy_ones_are_taken(base: Any, elsewhere: Any) -> None:
    for kind in KINDS:
        assert elsewhere.run(lambda kind=kind: use(base.bundle / f"model.{kind}")) == (0, "")
