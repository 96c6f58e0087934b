"""What ML programs quantise and dequantise, against torch, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("coremltools")
import coremltools as ct
import torch.ao.quantization.fx._decomposed  # registers the quantized_decomposed operators

from lavit_edge.artifact import mlprogram_ops
from lavit_edge.artifact.mlprogram import MLProgram

Q = torch.ops.quantized_decomposed


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
    path = tmp_path / "m.mlpackage"
    exported = torch.export.export(module.eval(), (x,)).run_decompositions({})
    ct.convert(exported, minimum_deployment_target=ct.target.iOS17, skip_model_load=True).save(str(path))
    program = MLProgram(path, "float32")
    kinds = [kind for kind, _ in program.operations if kind != "cast"]
    assert kinds == ["quantize", "dequantize", "linear", "quantize", "dequantize"]
    (name,), (output,) = program.inputs, program.outputs
    assert torch.equal(torch.from_numpy(program.predict({name: x.numpy()})[output]), module(x))
    stored = ct.utils.load_spec(str(path)).mlProgram.functions["main"].block_specializations["CoreML7"].operations
    (weight,) = [operation.outputs[0].name for operation in stored if operation.type.startswith("constexpr")]
    first = dict(reversed(program.operations))["quantize"]
    values = program.evaluate({name: x.numpy()}, [weight, first])
    np.testing.assert_array_equal(values[weight], module.dequantized())
    codes = Q.quantize_per_tensor(x, *module.activation).int() + (128 if zero_point == -128 else 0)
    np.testing.assert_array_equal(values[first], codes)
    rounded = MLProgram(path, "float16").evaluate({name: x.numpy()}, [weight])
    np.testing.assert_array_equal(rounded[weight], module.dequantized().half())
