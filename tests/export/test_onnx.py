"""What is done to the graph that torch writes, on graphs of three nodes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.reference
import pytest

from lavit_edge.export import onnx as onnx_target


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
