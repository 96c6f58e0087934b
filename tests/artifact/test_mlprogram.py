"""What the reference evaluator of ML programs refuses, and what it says of a package."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

pytest.importorskip("coremltools")
import coremltools as ct
from coremltools.models.neural_network import NeuralNetworkBuilder

from lavit_edge.artifact.mlprogram import MLProgram
from lavit_edge.errors import UserError


def convert(program: ExportedProgram, **options: Any) -> Any:
    target, precision = ct.target.iOS17, ct.precision.FLOAT16
    return ct.convert(program, minimum_deployment_target=target, compute_precision=precision, skip_model_load=True, **options)


def operations_of(spec: Any) -> Any:
    return spec.mlProgram.functions["main"].block_specializations["CoreML7"].operations


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sound package to damage."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 8))
    path = tmp_path_factory.mktemp("package") / "m.mlpackage"
    convert(torch.export.export(module.eval(), (torch.randn(1, 256),)).run_decompositions({})).save(str(path))
    return path


def edited(package: Path, folder: Path, edit: Callable[[Any], None]) -> Path:
    """A copy whose specification ``edit`` has changed."""
    path = folder / "edited.mlpackage"
    shutil.copytree(package, path)
    spec = ct.utils.load_spec(str(path))
    edit(spec)
    (path / "Data" / "com.apple.CoreML" / "model.mlmodel").write_bytes(spec.SerializeToString())
    return path


def operation_of(spec: Any, kind: str) -> Any:
    return next(operation for operation in operations_of(spec) if operation.type == kind)


def constant_of(spec: Any, value: str) -> Any:
    """The strings of the one constant that holds ``value``."""
    for operation in operations_of(spec):
        if operation.type == "const" and list(strings := operation.attributes["val"].immediateValue.tensor.strings.values) == [
            value
        ]:
            return strings
    raise AssertionError(value)


def several_functions(spec: Any) -> None:
    spec.mlProgram.functions["other"].CopyFrom(spec.mlProgram.functions["main"])


def other_opset(spec: Any) -> None:
    main = spec.mlProgram.functions["main"]
    main.block_specializations["CoreML8"].CopyFrom(main.block_specializations["CoreML7"])
    del main.block_specializations["CoreML7"]
    main.opset = "CoreML8"


EDITS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "operation": (lambda spec: setattr(operation_of(spec, "gelu"), "type", "mish"), r"mish -> \S+: the operation is unknown"),
    "input": (
        lambda spec: operation_of(spec, "gelu").inputs["alpha"].CopyFrom(operation_of(spec, "gelu").inputs["x"]),
        r"gelu -> \S+: .*alpha",
    ),
    "missing input": (lambda spec: operation_of(spec, "linear").inputs.pop("weight"), r"linear -> \S+: .*weight"),
    "attribute": (
        lambda spec: operation_of(spec, "gelu").attributes["fast"].CopyFrom(operation_of(spec, "gelu").attributes["name"]),
        r"gelu -> \S+: .*fast",
    ),
    "value": (lambda spec: constant_of(spec, "EXACT").__setitem__(0, "QUICK"), r"gelu -> \S+: mode 'QUICK' is unknown"),
    "declared shape": (
        lambda spec: setattr(operation_of(spec, "gelu").outputs[0].type.tensorType.dimensions[1].constant, "size", 255),
        r"gelu -> \S+: declared FLOAT16 \(1, 255\), got torch.float32 \(1, 256\)",
    ),
    "dangling name": (
        lambda spec: setattr(operation_of(spec, "gelu").inputs["x"].arguments[0], "name", "nowhere"),
        r"gelu -> \S+: there is no value 'nowhere'",
    ),
    "no output": (lambda spec: operation_of(spec, "gelu").outputs.pop(), "cannot evaluate gelu"),
    "one output too many": (lambda spec: operation_of(spec, "gelu").outputs.add(name="b"), r"gelu -> \S+, b"),
    "control flow": (lambda spec: operation_of(spec, "gelu").blocks.add(), r"gelu -> \S+: control flow is unknown"),
    "several functions": (several_functions, "several functions"),
    "operation set": (other_opset, "CoreML8 is unknown"),
    "state": (lambda spec: spec.description.state.add(name="cache"), "state"),
    "optional input": (lambda spec: setattr(spec.description.input[0].type, "isOptional", True), "optional"),
    "output that is not there": (lambda spec: setattr(spec.description.output[0], "name", "other"), "inputs and outputs"),
    "integer input": (
        lambda spec: setattr(spec.description.input[0].type.multiArrayType, "dataType", 131104),
        "must be floating",
    ),
}


@pytest.mark.parametrize("what", EDITS)
def test_what_is_unknown_is_refused(what: str, package: Path, tmp_path: Path) -> None:
    edit, message = EDITS[what]
    with pytest.raises(UserError, match=message):
        MLProgram(edited(package, tmp_path, edit))


def test_a_neural_network_is_refused(tmp_path: Path) -> None:
    builder = NeuralNetworkBuilder(
        [("x", ct.models.datatypes.Array(4))], [("y", ct.models.datatypes.Array(4))], disable_rank5_shape_mapping=True
    )
    builder.add_activation("a", "RELU", "x", "y")
    ct.models.MLModel(builder.spec, skip_model_load=True).save(str(tmp_path / "m.mlpackage"))
    with pytest.raises(UserError, match="not an ML program but a model of type neuralNetwork"):
        MLProgram(tmp_path / "m.mlpackage")


def test_a_shape_that_varies_is_refused(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=4)
    exported = torch.export.export(nn.ReLU(), (torch.randn(2, 8),), dynamic_shapes=({0: batch},)).run_decompositions({})
    inputs = [ct.TensorType(name="x", shape=(ct.RangeDim(1, 4), 8))]
    convert(exported, inputs=inputs).save(str(tmp_path / "m.mlpackage"))
    with pytest.raises(UserError, match="of one shape"):
        MLProgram(tmp_path / "m.mlpackage")


@pytest.mark.parametrize("part", ["model.mlmodel", "weights/weight.bin"])
@pytest.mark.parametrize("kept", [0, 0.5, None], ids=["empty", "half", "gone"])
def test_a_truncated_package_is_refused(part: str, kept: float | None, package: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.mlpackage"
    shutil.copytree(package, path)
    file = path / "Data" / "com.apple.CoreML" / part
    if kept is None:
        file.unlink()
    else:
        os.truncate(file, int(file.stat().st_size * kept))
    with pytest.raises(UserError, match=r"damaged|not an ML program"):
        MLProgram(path)


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.mlpackage", tmp_path):
        with pytest.raises(UserError, match=r"not an \.mlpackage"):
            MLProgram(path)
    assert not list(tmp_path.iterdir())


def test_wrong_inputs_are_refused(package: Path) -> None:
    with pytest.raises(UserError, match="precision"):
        MLProgram(package, "float64")  # type: ignore[arg-type]
    program = MLProgram(package)
    (name,) = program.inputs
    x = np.zeros((1, 256), np.float32)
    for inputs, message in (
        ({}, f"takes {name}, not nothing"),
        ({name: x, "y": x}, "takes"),
        ({name: x[0]}, r"takes float \(1, 256\), not float32 \(256,\)"),
        ({name: x.astype(np.int32)}, "not int32"),
    ):
        with pytest.raises(UserError, match=message):
            program.predict(inputs)
    with pytest.raises(UserError, match="no value named 'nowhere'"):
        program.evaluate({name: x}, ["nowhere"])
