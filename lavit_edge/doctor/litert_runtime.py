"""LiteRT's runtime on this host: one int8 layer, in a file that is made here, since its converter lives elsewhere."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from lavit_edge.artifact.runners import litert_interpreter
from lavit_edge.artifact.tflite import packed, schema
from lavit_edge.doctor import pins
from lavit_edge.doctor.findings import Probe, Status

WIDTH, STEP = 8, 0.5  # of the layer; all its values are whole numbers of steps


def layer(weight: np.ndarray) -> bytes:
    """A ``.tflite`` of one linear layer without a bias, int8 ``(1, 8)`` to int8 ``(1, 8)``, scales 0.5, 1 and 0.5."""
    generated = schema()
    model, graph, operator, code = (getattr(generated, name)() for name in ("ModelT", "SubGraphT", "OperatorT", "OperatorCodeT"))

    def tensor(name: str, shape: tuple[int, ...], scale: float, buffer: int) -> object:
        made, grid = generated.TensorT(), generated.QuantizationParametersT()
        grid.scale, grid.zeroPoint = np.array([scale], np.float32), np.array([0], np.int64)
        made.name, made.shape, made.type = name, np.array(shape, np.int32), generated.TensorType.INT8
        made.buffer, made.quantization = buffer, grid
        return made

    stored = generated.BufferT()
    stored.data = np.ascontiguousarray(weight).view(np.uint8).reshape(-1)
    code.builtinCode = code.deprecatedBuiltinCode = generated.BuiltinOperator.FULLY_CONNECTED
    code.version = 4
    operator.inputs, operator.outputs = np.array([0, 1, -1], np.int32), np.array([2], np.int32)
    operator.builtinOptionsType = generated.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = generated.FullyConnectedOptionsT()
    graph.tensors = [tensor("x", (1, WIDTH), STEP, 0), tensor("w", weight.shape, 1.0, 1), tensor("y", (1, WIDTH), STEP, 0)]
    graph.inputs, graph.outputs, graph.operators = np.array([0], np.int32), np.array([2], np.int32), [operator]
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [generated.BufferT(), stored]
    return packed(model)


def int8_layer() -> tuple[Status, str]:
    rng = np.random.default_rng(0)
    weight, x = rng.integers(-4, 5, (WIDTH, WIDTH), np.int8), rng.integers(-3, 4, (1, WIDTH), np.int8)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "layer.tflite"
        file.write_bytes(layer(weight))
        model = litert_interpreter(file, threads=1)
    model.set_tensor(0, x)
    model.invoke()
    off = int(np.abs(model.get_tensor(2).astype(int) - x.astype(int) @ weight.T.astype(int)).max())
    delegated = any(op["op_name"] == "DELEGATE" for op in model._get_ops_details())
    if off or not delegated:
        return "FAIL", f"an int8 layer is {off} steps off" if off else "XNNPACK does not take an int8 layer"
    return "OK", "an int8 layer is right, and XNNPACK takes it"


PROBES = (Probe("int8 layer", int8_layer, pins.repair("litert-runtime")),)
