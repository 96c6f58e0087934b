"""What is done to the graph that torch writes, on graphs of three nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
import torch

from lavit_edge.artifact.runners import onnx_session
from lavit_edge.export import onnx as onnx_target
from lavit_edge.metrics import sqnr
from lavit_edge.quantize.scheme import Dequantize, QuantizeDequantize


def test_folding_refuses_a_weight_that_is_also_used_as_it_is() -> None:
    nodes = [
        onnx.helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"], axis=0),
        onnx.helper.make_node("Transpose", ["v"], ["t"], perm=[1, 0]),
        onnx.helper.make_node("MatMul", ["v", "t"], ["y"]),
    ]
    weight = onnx.numpy_helper.from_array(np.ones((2, 3), np.int8), "w")
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 2])
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [output], [weight]))
    with pytest.raises(NotImplementedError, match="both"):
        onnx_target.fold_weight_transposes(model)


class Twins(torch.nn.Module):
    """Two int8 linear maps, or convolutions, with the same codes as weights, and with the same scales or not."""

    def __init__(self, axes: tuple[int, ...], scales: tuple[float, float]) -> None:
        super().__init__()
        self.axes = axes
        weight = torch.randint(-127, 128, (12, 12, *axes), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
        for name, scale in zip(("first", "second"), scales, strict=True):
            self.register_buffer(name, weight.clone())
            self.add_module(f"{name}_scale", Dequantize(torch.full((12,), scale)))
        self.codes = torch.nn.ModuleList(QuantizeDequantize(0.1, 0) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        compute = torch.nn.functional.conv2d if self.axes else torch.nn.functional.linear
        for index, name in enumerate(("first", "second")):
            weight = getattr(self, f"{name}_scale")(getattr(self, name))
            x = self.codes[index + 1](compute(self.codes[index](x), weight))
        return x


@pytest.mark.parametrize("scales", [(0.01, 0.01), (0.01, 0.02)])
@pytest.mark.parametrize("axes", [(), (1, 1)])
def test_layers_with_equal_weights_have_one_each(axes: tuple[int, ...], scales: tuple[float, float], tmp_path: Path) -> None:
    """Or ONNX Runtime, told to be exact without VNNI, refuses the file."""
    x = torch.randn(1, *((12, 4, 4) if axes else (4, 12)), generator=torch.Generator().manual_seed(1))
    program = torch.export.export(Twins(axes, scales).eval(), (x,))
    model = onnx_target.to_onnx(program)
    read = [node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert {"first", "second"} <= set(read)
    assert len([name for name in read if name in ("first", "second")]) == 2
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "model.onnx")
    (found,) = onnx_session(tmp_path / "model.onnx", 1).run(None, {"image": x.numpy()})
    assert sqnr(program.module()(x).detach().numpy(), found) > 30


def padded(
    sides: list[int], value: float = 0.0, grid: float = 0.1, own: list[int] | None = None, mode: str = "constant"
) -> onnx.ModelProto:
    """A map of codes, other numbers around it, the codes again, a convolution."""
    chain = ["QuantizeLinear", "DequantizeLinear", "Pad", "QuantizeLinear", "DequantizeLinear"]
    inputs = [["s", "z"], ["s", "z"], ["sides", "value"], ["t", "z"], ["t", "z"]]
    nodes = [
        onnx.helper.make_node(kind, [f"v{index}" if index else "x", *names], [f"v{index + 1}"])
        for index, (kind, names) in enumerate(zip(chain, inputs, strict=True))
    ]
    nodes[2].attribute.append(onnx.helper.make_attribute("mode", mode))
    if mode == "reflect":  # torch's exporter writes no value then, which would mean nothing
        del nodes[2].input[2:]
    nodes.append(onnx.helper.make_node("Conv", ["v5", "w"], ["y"], **({"pads": own} if own else {})))
    weight = np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32)
    stored = {"s": np.float32(0.1), "t": np.float32(grid), "z": np.int8(-3), "value": np.float32(value)}
    stored |= {"sides": np.array(sides), "w": weight}
    tensors = [onnx.numpy_helper.from_array(np.asarray(tensor), name) for name, tensor in stored.items()]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, None, None, None]) for name in "xy"]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors))
    return model


@pytest.mark.parametrize(
    ("model", "folded"),
    [
        (padded([0, 0, 0, 1, 0, 0, 2, 3]), [0, 1, 2, 3]),
        (padded([0, 0, 1, 0, 0, 0, 0, 0], own=[1, 2, 3, 4]), [2, 2, 3, 4]),
        (padded([0, 0, 0, 0, 0, 0, 1, 1], value=1.0), None),
        (padded([0, 0, 0, 0, 0, 0, 1, 1], grid=0.2), None),
        (padded([0, 0, 1, 1, 0, 0, 1, 1], mode="reflect"), None),
        (padded([0, 0, 1, 1, 0, 0, 1, 1], mode="edge"), None),
        (padded([0, 0, 0, 0, 0, 0, -1, 1]), None),
        (padded([0, 1, 0, 0, 0, -1, 1, 1]), None),
    ],
)
def test_a_convolution_puts_the_zeros_around_its_map(model: onnx.ModelProto, folded: list[int] | None) -> None:
    stored, inputs = model.SerializeToString(), {"x": np.random.default_rng(1).normal(size=(1, 2, 8, 8)).astype(np.float32)}
    onnx_target.fold_paddings(model)
    if folded is None:
        assert model.SerializeToString() == stored
        return
    assert [node.op_type for node in model.graph.node] == ["QuantizeLinear", "DequantizeLinear", "Conv"]
    assert [list(each.ints) for each in model.graph.node[-1].attribute] == [folded]
    before, after = (onnx.reference.ReferenceEvaluator(each).run(None, inputs)[0] for each in (stored, model))
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_folding_keeps_the_axis_of_the_scales(axis: int) -> None:
    """A square weight, so that either axis would fit its scales."""
    rng = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"], axis=axis),
        onnx.helper.make_node("Transpose", ["v"], ["t"], perm=[1, 0]),
        onnx.helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    stored = {
        "w": rng.integers(-128, 128, (4, 4), np.int8),
        "s": rng.uniform(0.1, 9, 4).astype(np.float32),
        "z": rng.integers(-9, 9, 4, np.int8),
    }
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4, 4]) for name in "xy"]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in stored.items()]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors))
    inputs = {"x": rng.normal(size=(4, 4)).astype(np.float32)}
    (before,) = onnx.reference.ReferenceEvaluator(model).run(None, inputs)
    onnx_target.fold_weight_transposes(model)
    assert [node.op_type for node in model.graph.node] == ["DequantizeLinear", "MatMul"]
    (after,) = onnx.reference.ReferenceEvaluator(model).run(None, inputs)
    np.testing.assert_array_equal(after, before)


class Between(torch.nn.Module):
    """A layer whose weights are float, given int8 codes, whose result becomes int8 codes; moved before and after, or not."""

    def __init__(self, layer: torch.nn.Module, act: torch.nn.Module, turned: bool) -> None:
        super().__init__()
        self.layer, self.act, self.turned = layer, act, turned
        self.before, self.after = QuantizeDequantize(0.05, 3), QuantizeDequantize(0.02, -5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.before(x)
        x = self.act(self.layer(x.transpose(-2, -1) if self.turned else x))
        return self.after(x.transpose(1, -1) if self.turned else x)


@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
@pytest.mark.parametrize("act", [torch.nn.Identity(), torch.nn.ReLU6()], ids=lambda act: type(act).__name__)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (torch.nn.Conv2d(4, 6, 3), (1, 4, 6, 6)),
        (torch.nn.Conv2d(4, 6, 3, groups=2, bias=False), (1, 4, 6, 6)),
        (torch.nn.ConvTranspose2d(4, 6, 2, 2, groups=2), (1, 4, 6, 6)),
        (torch.nn.Conv1d(4, 6, 3), (1, 4, 4)),
        (torch.nn.Linear(4, 6), (4, 4)),
        (torch.nn.Linear(4, 6), (1, 4, 4)),
        (torch.nn.Linear(4, 6, bias=False), (4, 4)),
    ],
    ids=["conv", "grouped", "transposed", "conv1d", "linear", "tokens", "product"],
)
def test_float_weights_stay_float(
    layer: torch.nn.Module, shape: tuple[int, ...], act: torch.nn.Module, turned: bool, tmp_path: Path
) -> None:
    """ONNX Runtime makes them int8, a scale for all channels, when int8 codes come and go."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():  # channels of very unequal size: one scale for all shows
            size = torch.logspace(-2, 0, len(parameter)).reshape(-1, *[1] * (parameter.ndim - 1))
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
    x = torch.randn(shape, generator=generator)
    program = torch.export.export(Between(layer, act, turned).eval(), (x,))
    onnx.save(onnx_target.to_onnx(program), tmp_path / "model.onnx")
    session = onnx_session(tmp_path / "model.onnx", 1, optimized_model_filepath=str(tmp_path / "optimized.onnx"))
    (found,) = session.run(None, {"image": x.numpy()})
    assert np.array_equal(found, program.module()(x).detach().numpy())
    stored = onnx.load(tmp_path / "optimized.onnx").graph.initializer
    assert {tensor.data_type for tensor in stored if len(tensor.dims) > 1} == {onnx.TensorProto.FLOAT}
