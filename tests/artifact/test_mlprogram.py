"""The reference evaluator of ML programs against torch, operation by operation, and what it refuses."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

pytest.importorskip("coremltools")
import coremltools as ct
import torch.ao.quantization.fx._decomposed  # registers the quantized_decomposed operators
from coremltools.models.neural_network import NeuralNetworkBuilder

from lavit_edge.artifact import mlprogram_ops
from lavit_edge.artifact.mlprogram import MLProgram
from lavit_edge.errors import UserError

Q = torch.ops.quantized_decomposed


class Function(nn.Module):
    """A function as a module, with a parameter to use."""

    def __init__(self, function: Callable[..., Tensor], *shape: int) -> None:
        super().__init__()
        self.function = function
        self.parameter = nn.Parameter(torch.randn(shape)) if shape else None

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) if self.parameter is None else self.function(x, self.parameter)


def half_grid(module: nn.Module) -> nn.Module:
    """Every floating tensor rounded to what fp16 can hold, so that storing it in fp16 loses nothing."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.half().float()
    return module.eval()


def save(module: nn.Module, shape: tuple[int, ...], path: Path) -> Path:
    program = torch.export.export(module.eval(), (torch.randn(shape),)).run_decompositions({})
    convert(program).save(str(path))
    return path


def convert(program: ExportedProgram, **options: Any) -> Any:
    target, precision = ct.target.iOS17, ct.precision.FLOAT16
    return ct.convert(program, minimum_deployment_target=target, compute_precision=precision, skip_model_load=True, **options)


def run(program: MLProgram, x: Tensor) -> Tensor:
    (name,), (output,) = program.inputs, program.outputs
    return torch.from_numpy(program.predict({name: x.numpy()})[output])


def batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(8)
    norm.running_mean, norm.running_var = torch.randn(8), torch.rand(8) + 0.5
    return norm


CASES: dict[str, tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": ("linear", lambda: nn.Linear(32, 48), (1, 16, 32)),
    "linear without bias": ("linear", lambda: nn.Linear(32, 48, bias=False), (1, 16, 32)),
    "patches": ("conv", lambda: nn.Conv2d(3, 16, 4, 4), (1, 3, 16, 16)),
    "padded, strided": ("conv", lambda: nn.Conv2d(3, 16, 3, 2, padding=1, bias=False), (1, 3, 15, 16)),
    "padding not square": ("conv", lambda: nn.Conv2d(3, 4, 3, padding=(2, 1)), (1, 3, 8, 9)),
    "depthwise": ("conv", lambda: nn.Conv2d(32, 32, 3, padding=1, groups=32), (1, 32, 8, 8)),
    "grouped, dilated": ("conv", lambda: nn.Conv2d(8, 12, 3, dilation=2, groups=4), (1, 8, 9, 9)),
    "matmul": ("matmul", lambda: Function(lambda x, w: torch.bmm(x, w), 4, 16, 6), (4, 9, 16)),
    "matmul, y transposed": ("matmul", lambda: Function(lambda x, w: torch.bmm(x, w.transpose(1, 2)), 4, 6, 16), (4, 9, 16)),
    "softmax": ("softmax", lambda: nn.Softmax(-1), (2, 16, 16)),
    "layer_norm": ("layer_norm", lambda: nn.LayerNorm(32), (1, 16, 32)),
    "layer_norm of two axes": ("layer_norm", lambda: nn.LayerNorm((4, 8)), (2, 4, 8)),
    "batch_norm": ("batch_norm", batch_norm, (1, 8, 5, 5)),
    "gelu": ("gelu", lambda: nn.GELU(), (1, 16, 32)),
    "relu": ("relu", lambda: nn.ReLU(), (1, 16, 32)),
    "add": ("add", lambda: Function(lambda x, w: x + w, 1, 1, 32), (1, 16, 32)),
    "sub": ("sub", lambda: Function(lambda x, w: w - x, 32), (1, 16, 32)),
    "mul": ("mul", lambda: Function(lambda x, w: x * w, 16, 1), (1, 16, 32)),
    "mul by a number": ("mul", lambda: Function(lambda x: x * 0.375), (1, 16, 32)),
    "reduce_mean": ("reduce_mean", lambda: Function(lambda x: x.mean(1)), (1, 16, 32)),
    "reduce_mean, kept": ("reduce_mean", lambda: Function(lambda x: x.mean((2, 3), keepdim=True)), (1, 4, 5, 6)),
    "reshape": ("reshape", lambda: Function(lambda x: x.unflatten(2, (4, 8))), (1, 16, 32)),
    "pad": ("pad", lambda: Function(lambda x: nn.functional.pad(x, (0, 0, 1, 0))), (1, 16, 32)),
    "pad, two axes": ("pad", lambda: Function(lambda x: nn.functional.pad(x, (2, 3, 0, 1), value=0.5)), (2, 4, 8)),
    "select": ("slice_by_index", lambda: Function(lambda x: x[:, 0]), (1, 16, 32)),
    "slice": ("slice_by_index", lambda: Function(lambda x: x[:, 3:-2, 1:]), (1, 16, 32)),
    "pixel_shuffle": ("pixel_shuffle", lambda: nn.PixelShuffle(2), (1, 8, 3, 4)),
    "transpose": ("transpose", lambda: Function(lambda x: x.permute(0, 2, 1, 3)), (1, 4, 5, 6)),
}


@pytest.mark.parametrize("case", CASES)
def test_an_operation_equals_torch(case: str, tmp_path: Path) -> None:
    operation, make, shape = CASES[case]
    torch.manual_seed(0)
    module, x = half_grid(make()), torch.randn(shape).half().float()
    with torch.no_grad():
        expected = module(x)

    path = save(module, shape, tmp_path / "m.mlpackage")
    program = MLProgram(path, "float32")
    assert operation in [kind for kind, _ in program.operations]
    torch.testing.assert_close(run(program, x), expected, rtol=1e-5, atol=2e-6)
    rounded = run(MLProgram(path, "float16"), x)
    assert torch.equal(rounded, rounded.half().float())
    torch.testing.assert_close(rounded, expected, rtol=2.0**-10, atol=2e-6)


def test_a_program_in_full_precision_is_not_rounded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = nn.Linear(32, 48), torch.randn(1, 16, 32)
    exported = torch.export.export(module, (x,)).run_decompositions({})
    full = ct.convert(exported, minimum_deployment_target=ct.target.iOS17, compute_precision=ct.precision.FLOAT32)
    full.save(str(tmp_path / "m.mlpackage"))
    for precision in ("float16", "float32"):
        program = MLProgram(tmp_path / "m.mlpackage", precision)
        torch.testing.assert_close(run(program, x), module(x).detach(), rtol=1e-5, atol=1e-6)


def test_half_precision_rounds_after_every_operation(tmp_path: Path) -> None:
    """1 + 2^-11 is halfway to fp16's next number: rounded at once it is gone, kept in float32 it is not."""
    module = Function(lambda x: ((x + 2.0**-11).relu() - 1.0) * 2048.0)
    path = save(module, (1, 4), tmp_path / "m.mlpackage")
    x = torch.ones(1, 4)
    assert run(MLProgram(path, "float16"), x).tolist() == [[0.0] * 4]
    assert run(MLProgram(path, "float32"), x).tolist() == [[1.0] * 4]


# quantised tensors


@pytest.mark.parametrize(("dtype", "low", "high"), [(torch.int8, -128, 127), (torch.uint8, 0, 255)])
@pytest.mark.parametrize("zero_point", [0, 5, 127, -128])
@pytest.mark.parametrize("scale", [0.25, 0.037109375, 3.5])
def test_quantising_equals_torch_exactly(dtype: torch.dtype, low: int, high: int, zero_point: int, scale: float) -> None:
    zero_point = zero_point + 128 if dtype == torch.uint8 else zero_point
    torch.manual_seed(0)
    x = torch.cat([torch.randn(4096) * 40 * scale, torch.tensor([1e4, -1e4, 0.0, -0.0])])
    if scale == 0.25:  # where the quotient is exact; elsewhere torch multiplies by 1 / scale and misses the tie
        x = torch.cat([x, (torch.arange(-300, 300) + 0.5) * scale])
    codes = Q.quantize_per_tensor(x, scale, zero_point, low, high, dtype)
    assert codes.unique().numel() > 100  # saturated at both ends
    assert codes.min() == low
    assert codes.max() == high
    got = mlprogram_ops.quantize(x, scale, "int8" if dtype == torch.int8 else "uint8", zero_point)
    assert got.dtype == dtype
    assert torch.equal(got, codes)
    back = Q.dequantize_per_tensor(codes, scale, zero_point, low, high, dtype)
    assert torch.equal(mlprogram_ops.dequantize(codes, scale, zero_point), back)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_quantising_along_an_axis_equals_torch_exactly(axis: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 5, 4)
    count = x.shape[axis]
    scale, zero_point = torch.rand(count) * 0.02 + 0.01, torch.randint(-20, 20, (count,), dtype=torch.int8)
    arguments = (scale, zero_point.long(), axis % 3, -128, 127, torch.int8)
    codes = Q.quantize_per_channel(x, *arguments)
    back = Q.dequantize_per_channel(codes, *arguments)
    assert torch.equal(mlprogram_ops.quantize(x, scale, "int8", zero_point, axis), codes)
    assert torch.equal(mlprogram_ops.dequantize(codes, scale, zero_point, axis), back)
    assert torch.equal(mlprogram_ops.constexpr_affine_dequantize(codes, zero_point, scale, axis), back)
    with pytest.raises(ValueError, match="axis"):
        mlprogram_ops.quantize(x, scale, "int8", zero_point)


class QuantizedLinear(nn.Module):
    """int8 in, int8 weights per output channel, int8 out."""

    def __init__(self, zero_point: int) -> None:
        super().__init__()
        self.activation = (0.03125 * 1.25, zero_point, -128, 127, torch.int8)
        self.register_buffer("scale", ((torch.rand(24) + 0.5) / 256).half().float())
        self.register_buffer("zero_point", torch.zeros(24, dtype=torch.int64))
        self.register_buffer("weight", torch.randint(-127, 128, (24, 16), dtype=torch.int8))
        self.bias = nn.Parameter(torch.randn(24).half().float())

    def dequantized(self) -> Tensor:
        return Q.dequantize_per_channel(self.weight, self.scale, self.zero_point, 0, -127, 127, torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        x = Q.dequantize_per_tensor(Q.quantize_per_tensor(x, *self.activation), *self.activation)
        x = nn.functional.linear(x, self.dequantized(), self.bias)
        return Q.dequantize_per_tensor(Q.quantize_per_tensor(x, *self.activation), *self.activation)


@pytest.mark.parametrize("zero_point", [0, 7, -128])  # 0 is left out of the file, -128 is stored as uint8 without a zero point
def test_a_quantised_layer_equals_torch(zero_point: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = QuantizedLinear(zero_point), (2 * torch.randn(1, 9, 16)).half().float()
    path = save(module, (1, 9, 16), tmp_path / "m.mlpackage")
    program = MLProgram(path, "float32")
    kinds = [kind for kind, _ in program.operations if kind != "cast"]
    assert kinds == ["quantize", "dequantize", "linear", "quantize", "dequantize"]
    assert torch.equal(run(program, x), module(x))
    (name,) = program.inputs
    (weight,) = [op.outputs[0].name for op in operations_of(ct.utils.load_spec(str(path))) if op.type.startswith("constexpr")]
    first = dict(reversed(program.operations))["quantize"]
    values = program.evaluate({name: x.numpy()}, [weight, first])
    np.testing.assert_array_equal(values[weight], module.dequantized())
    codes = Q.quantize_per_tensor(x, *module.activation).int() + (128 if zero_point == -128 else 0)
    np.testing.assert_array_equal(values[first], codes)
    rounded = MLProgram(path, "float16").evaluate({name: x.numpy()}, [weight])
    np.testing.assert_array_equal(rounded[weight], module.dequantized().half())


# refusals


def operations_of(spec: Any) -> Any:
    return spec.mlProgram.functions["main"].block_specializations["CoreML7"].operations


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sound package to damage."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 8))
    return save(module, (1, 256), tmp_path_factory.mktemp("package") / "m.mlpackage")


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


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Function(torch.sin), r"sin -> \S+: the operation is unknown"),
        (nn.Conv1d(4, 4, 3), "rank 3"),
    ],
    ids=["sin", "conv1d"],
)
def test_what_torch_has_and_we_do_not_is_refused(module: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        MLProgram(save(module, (1, 4, 8), tmp_path / "m.mlpackage"))


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


@pytest.mark.parametrize("spread", [0.5, 2.0])  # within the map, and far beyond it
def test_sampling_equals_torch(spread: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    places = (spread * torch.randn(1, 5, 7, 2)).clamp(-4, 4)
    module = half_grid(Function(lambda x, places: nn.functional.grid_sample(x, places, align_corners=False), 1, 5, 7, 2))
    assert module.parameter is not None
    module.parameter.data = places.half().float()
    x = torch.randn(1, 3, 6, 8).half().float()
    path = save(module, (1, 3, 6, 8), tmp_path / "m.mlpackage")
    with torch.no_grad():
        torch.testing.assert_close(run(MLProgram(path, "float32"), x), module(x), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", [dict(mode="nearest"), dict(padding_mode="border"), dict(align_corners=True)])
def test_another_kind_of_sampling_is_refused(kind: dict[str, Any], tmp_path: Path) -> None:
    kind = {"align_corners": False, **kind}
    module = Function(lambda x, places: nn.functional.grid_sample(x, places, **kind), 1, 5, 7, 2)
    with pytest.raises(UserError, match=r"resample -> \S+: .* is unknown"):
        MLProgram(save(module, (1, 3, 6, 8), tmp_path / "m.mlpackage"))
