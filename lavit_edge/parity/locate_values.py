"""What an artifact's own runtime computes at the points of its program, and the int8 grids that are stored in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lavit_edge.artifact.aimodel import AIModel, operations
from lavit_edge.artifact.runners import onnx_session, to_tensor
from lavit_edge.parity.locate_points import DEQUANTIZE, QUANTIZE, Reference, Values
from lavit_edge.toolchain import missing

RUNTIMES = {  # by the suffix of the artifact
    ".pte": "ExecuTorch, XNNPACK",
    ".onnx": "ONNX Runtime",
    ".ort": "ONNX Runtime",
    ".mlpackage": "reference evaluator, fp16",
    ".tflite": "LiteRT, XNNPACK",
    ".aimodel": "Core AI",
}


def open_values(path: Path, reference: Reference, folder: Path) -> Values:
    """
    Args:
        path: the artifact, of one of :data:`lavit_edge.artifact.runners.SUFFIXES`.
        reference: the program that it was made from.
        folder: takes a copy of the artifact in which intermediate values are outputs.

    Raises:
        UserError: the artifact cannot be read, or it is not made from this program.
    """
    if path.suffix == ".pte":
        from lavit_edge.parity.locate_pte import open_pte

        return open_pte(path, reference, folder)
    if path.suffix == ".tflite":
        from lavit_edge.parity.locate_tflite import open_tflite

        return open_tflite(path, reference, folder)
    if path.suffix == ".aimodel":
        return _aimodel(path, reference)
    return (_mlprogram if path.suffix == ".mlpackage" else _onnx)(path, reference, folder)


def _onnx(path: Path, reference: Reference, folder: Path) -> Values:
    """Looks into the graph that ONNX Runtime makes of the file: its own kernels, on weights and scales of the file.

    Outputs added to the file itself would keep ONNX Runtime from fusing, and other kernels would run: on the bundled model that
    moved logits by up to 0.026. The optimised graph is saved, given the outputs, and run as it is: the same bits. A ``.ort``
    holds such a graph already, and ONNX Runtime saves it as ONNX.
    Float values and dequantisers keep the names of the program's nodes there; int8 layers are known by the names of their
    weights.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise missing("ONNX Runtime", "onnx", error) from error
    copy = folder / f"{path.name}.onnx"
    onnx_session(path, threads=1, optimized_model_filepath=str(copy))
    model = onnx.load(copy)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    origin = reference.onnx_names
    names = {reference.logits: "logits"}
    grids: dict[str, tuple[float, int]] = {}
    floats = {name for name, point in reference.points.items() if point.scale is None}
    dequantized = {node.name: node.args[0].name for node in reference.calls if node.target == DEQUANTIZE}

    def codes(point: str, value: str, grid: Sequence[str]) -> None:
        names[point], grids[point] = value, (float(stored[grid[0]]), int(stored[grid[1]]))

    makers = {name: node for node in model.graph.node for name in node.output}

    def unrounded(value: str) -> str:
        """What was quantised, where a quantiser was moved past reshapes and transposes to in front of them: ShuffleNet's."""
        maker = makers[value]
        while maker.op_type in ("Transpose", "Reshape") and maker.input[0] in makers:
            maker = makers[maker.input[0]]
        quantize = makers.get(maker.input[0]) if maker.op_type == "DequantizeLinear" else None
        return quantize.input[0] if quantize is not None and quantize.op_type == "QuantizeLinear" else value

    for node in model.graph.node:
        # the ending is ONNX Runtime's where it makes int8 weights uint8, on x86-64 without VNNI
        output, weight = node.output[0], node.input[3].removesuffix("_s8_2_u8") if len(node.input) > 3 else ""
        if node.op_type in ("QLinearConv", "QGemm") and weight in reference.layers:
            before, after = reference.layers[weight]
            if before:
                codes(before, node.input[0], node.input[1:3])
            codes(after, output, node.input[6:8] if node.op_type == "QLinearConv" else node.input[7:9])
        elif (point := origin.get(output, output)) in reference.points and node.op_type == "QuantizeLinear":
            codes(point, output, node.input[1:3])
        elif node.op_type == "DequantizeLinear" and dequantized.get(origin.get(output, output)) in reference.points:
            codes(dequantized[origin.get(output, output)], node.input[0], node.input[1:3])
        elif (point := origin.get(plain := output.removesuffix("_pre_q"), plain)) in floats:  # a quantiser was moved next to it
            names[point] = unrounded(output)
    model.graph.output.extend(onnx.ValueInfoProto(name=value) for value in sorted({*names.values()} - {"logits"}))
    onnx.save(model, copy)
    session = onnx_session(copy, threads=1, graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)

    def read(picture: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(list(names.values()), {"image": to_tensor(picture)}), strict=True))

    return Values(path.name, reference, read, grids)


def _mlprogram(path: Path, reference: Reference, folder: Path) -> Values:
    """Values have the names of the program's nodes, with an ending where they are fp16.

    Quantisers are known by their input, or else by their order, if there are as many as in the program, or else by their number,
    which counts those of the program. One that is not found is computed anew, and where its code flips, that is a step times the
    weight behind it: in EfficientNet-Lite0 a ``clamp`` became a ``clip_0`` and the numbers began at 3, which made 18 steps of the
    first depthwise convolution. coremltools divides the three
    scales around an int8 addition by that of one summand, whose own becomes 1; the sum's is multiplied by it again.
    """
    try:
        from lavit_edge.artifact.mlprogram import MLProgram
    except ImportError as error:
        raise missing("the reader of ML programs", "coreml", error) from error
    program = MLProgram(path)
    names = {reference.logits: "logits"}
    grids: dict[str, tuple[float, int]] = {}
    quantizers = [node for node in reference.calls if node.target == QUANTIZE and node.name in reference.points]
    quantized = {node.args[0].name: node.name for node in quantizers}
    points: dict[str, str] = {}  # of the codes, by their name in the package
    stored = [value for type_, value in program.operations if type_ == "quantize"]
    steps = {node.name: node.args[1] for node in reference.calls if node.target == QUANTIZE}
    in_order = dict(zip(stored, steps, strict=True)) if len(stored) == len(steps) else {}
    for type_, value in program.operations:
        name = value.removesuffix("_cast_fp16")
        point = reference.names.get(name, name)
        if type_ == "quantize":
            source, scale, zero_point, unit = program.quantizers[value]
            number = name.removeprefix("quantize_")
            by_number = "quantize_per_tensor" if number == "0" else f"quantize_per_tensor_{number}"
            source = source.removesuffix("_cast_fp16")
            point = quantized.get(reference.names.get(source, source)) or in_order.get(value, by_number)
            points[value] = point
            if unit is not None:
                scale *= steps.get(points[unit], math.nan)
        # what coremltools adds on its own may take a name of the program's: of a group norm, the variance and epsilon
        if point in reference.points and program.sizes[value] == math.prod(reference.points[point].shape):
            names[point] = value
            if type_ == "quantize":
                grids[point] = scale, zero_point

    def read(picture: np.ndarray) -> dict[str, np.ndarray]:
        values = program.evaluate({"image": picture}, list(names.values()))
        return {point: np.asarray(values[value]) for point, value in names.items()}

    return Values(path.name, reference, read, grids)


def _aimodel(path: Path, reference: Reference) -> Values:
    """Operations say of which node of the program they are; of several the last has its value.

    A copy of the program, in which those values are outputs, runs in the same runtime.
    """
    found = operations(path)
    origin = reference.coreai_names
    numbers: dict[str, int] = {}
    grids: dict[str, tuple[float, int]] = {}
    for number, operation in enumerate(found):
        point = origin.get(operation["source"], operation["source"])
        if point in reference.points and operation["name"] != "constant":
            numbers[point] = number
            if operation["name"] == "quantize":
                scale, zero_point = (found[operand].get("value", math.nan) for operand in operation["operands"][1:3])
                grids[point] = scale, int(zero_point)
    model = AIModel(path, sorted(numbers.values()))

    def read(picture: np.ndarray) -> dict[str, np.ndarray]:
        values = model.run(to_tensor(picture))
        return {point: values[str(number)] for point, number in numbers.items()}

    return Values(path.name, reference, read, grids)
