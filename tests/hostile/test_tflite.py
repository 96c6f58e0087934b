"""A ``.tflite`` whose flatbuffer is whole and whose contents lead astray: what reads it refuses it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavit_edge.artifact import tflite
from lavit_edge.artifact.payload import KEY, read_payload
from lavit_edge.artifact.runners import open_artifact, read_entries
from lavit_edge.benchmark.run import benchmark
from lavit_edge.verdict.read import read

MODEL = Path(__file__).parents[1] / "golden" / "litert" / "bundle" / "model.tflite"
Edit = Callable[[Any], object]


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """Once, before the forks."""
    importlib.import_module("ai_edge_litert.interpreter")
    tflite.schema()


def edited(folder: Path, change: Edit) -> Path:
    with tflite.reading(MODEL) as root:
        model = tflite.schema().ModelT.InitFromObj(root)
    change(model)
    path = folder / "model.tflite"
    path.write_bytes(tflite.packed(model))
    return path


def use(path: Path) -> int:
    assert open_artifact(path, threads=1)(np.zeros((64, 64, 3), np.uint8)).shape == (10,)
    return 0


def convolution(model: Any) -> Any:
    graph = model.subgraphs[0]
    return next(op for name, op in tflite.operators(tflite.schema(), model, graph) if name == "CONV_2D")


def weight(model: Any) -> Any:
    return model.subgraphs[0].tensors[convolution(model).inputs[1]]


def graph_of(model: Any) -> Any:
    return model.subgraphs[0]


def inputs(number: int) -> Edit:
    def change(model: Any) -> None:
        op = convolution(model)
        op.inputs = np.array([number, *op.inputs[1:]], np.int32)

    return change


def outputs(number: int) -> Edit:
    return lambda model: setattr(convolution(model), "outputs", np.array([number], np.int32))


def custom(model: Any) -> None:
    generated = tflite.schema()
    code = model.operatorCodes[0]
    code.builtinCode, code.deprecatedBuiltinCode = generated.BuiltinOperator.CUSTOM, generated.BuiltinOperator.CUSTOM
    code.customCode = "evil\nerror"


GRAPHS: dict[str, Edit] = {
    "no graph": lambda model: setattr(model, "subgraphs", []),
    "no operators": lambda model: setattr(graph_of(model), "operators", []),
    "no tensors": lambda model: setattr(graph_of(model), "tensors", []),
    "no inputs": lambda model: setattr(graph_of(model), "inputs", np.array([], np.int32)),
    "no outputs": lambda model: setattr(graph_of(model), "outputs", np.array([], np.int32)),
    "an output that is none": lambda model: setattr(graph_of(model), "outputs", np.array([99999], np.int32)),
    "two outputs": lambda model: setattr(graph_of(model), "outputs", np.array([*graph_of(model).outputs, 40], np.int32)),
    "an input far away": inputs(2**31 - 1),
    "a negative input": inputs(-5),
    "a loop": lambda model: inputs(int(graph_of(model).outputs[0]))(model),
    "an output far away": outputs(2**31 - 1),
    "a negative output": outputs(-7),
    "an operator code far away": lambda model: setattr(convolution(model), "opcodeIndex", 12345),
    "an operator of the future": lambda model: setattr(model.operatorCodes[0], "builtinCode", 32000),
    "an operator of a plug-in": custom,
    "a weight's buffer far away": lambda model: setattr(weight(model), "buffer", 99999),
    "a weight with too few bytes": lambda model: setattr(weight(model), "buffer", 1),
    "a weight of a huge size": lambda model: setattr(weight(model), "shape", np.array([2**30, 2**30, 2**30, 3], np.int32)),
    "a weight of a negative size": lambda model: setattr(weight(model), "shape", np.array([-1, 3, 3, 3], np.int32)),
    "a weight of an unknown type": lambda model: setattr(weight(model), "type", 99),
    "an input of another size": lambda model: setattr(
        graph_of(model).tensors[graph_of(model).inputs[0]], "shape", np.array([1, 3, 96, 96], np.int32)
    ),
    "an input of int8": lambda model: setattr(graph_of(model).tensors[graph_of(model).inputs[0]], "type", 9),
}


@pytest.mark.parametrize("change", GRAPHS.values(), ids=GRAPHS)
def test_a_graph(change: Edit, tmp_path: Path, elsewhere: Any) -> None:
    path = edited(tmp_path, change)
    elsewhere.refused(lambda: use(path))
    elsewhere.survives(lambda: bool(read(path)) and 0)


def metadata(change: Callable[[Any, Any], object]) -> Edit:
    """A change of the contract's metadata entry, given with the model."""
    return lambda model: change(model, next(each for each in model.metadata if each.name == (KEY + "contract").encode()))


def content(data: bytes) -> Edit:
    return metadata(lambda model, each: setattr(model.buffers[each.buffer], "data", np.frombuffer(data, np.uint8)))


ENTRIES: dict[str, Edit] = {
    "no payload": lambda model: setattr(model, "metadata", []),
    "a buffer far away": metadata(lambda model, each: setattr(each, "buffer", 99999)),
    "an empty buffer": metadata(lambda model, each: setattr(each, "buffer", 0)),
    "no name": metadata(lambda model, each: setattr(each, "name", None)),
    "a name that is no text": metadata(lambda model, each: setattr(each, "name", b"\xff\xfe" * 9)),
    "no JSON": content(b"{" * 50_000),
    "no text": content(b"\xff" * 1000),
    "huge": content(b" " * 30_000_000),
}


@pytest.mark.parametrize("change", ENTRIES.values(), ids=ENTRIES)
def test_an_entry(change: Edit, tmp_path: Path, elsewhere: Any) -> None:
    path = edited(tmp_path, change)
    elsewhere.refused(lambda: bool(read_payload(read_entries(path))) and 0)
    elsewhere.refused(lambda: bool(benchmark(path, tmp_path / "reports")) and 0)
