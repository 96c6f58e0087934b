"""What LiteRT computes inside a ``.tflite``, by the points of its program."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from lavit_edge.artifact.runners import litert_interpreter, to_tensor
from lavit_edge.artifact.tflite import operators, packed, reading, schema
from lavit_edge.parity.locate_points import QUANTIZE, Reference, Values

MOVING = {"TRANSPOSE", "RESHAPE", "PAD", "PADV2", "SLICE", "STRIDED_SLICE", "SPLIT", "GATHER", "CONCATENATION", "DEQUANTIZE"}


def open_tflite(path: Path, reference: Reference, folder: Path) -> Values:
    """Runs a copy of the file in which the values that are looked at are outputs, so that XNNPACK hands them out.

    Tensors are named after the calls of the program that they come from, several where a kernel does several; the last of those
    in the program is what the tensor holds.

    Raises as :func:`lavit_edge.parity.locate_values.open_values`.
    """
    order = {node.name: index for index, node in enumerate(reference.calls)}
    quantized = {node.args[0].name: node.name for node in reference.calls if node.target == QUANTIZE}
    places: dict[str, int] = {reference.logits: -1}
    grids: dict[str, tuple[float, int]] = {}
    with reading(path) as root:
        generated = schema()
        model = generated.ModelT.InitFromObj(root)
        graph = model.subgraphs[0]
        for name, operator in operators(generated, model, graph):
            index = int(operator.outputs[0])
            tensor = graph.tensors[index]
            calls = [call for call in (tensor.name or b"").decode("utf-8", "replace").split(";") if call in order]
            if name in MOVING or not calls:
                continue
            call = max(calls, key=order.__getitem__)
            int8 = tensor.type == generated.TensorType.INT8
            point = (call if call in reference.points else quantized.get(call)) if int8 else call
            if point not in reference.points or point == reference.logits:
                continue
            wanted = reference.points[point]
            if (wanted.scale is not None) != int8 or math.prod(wanted.shape) != math.prod(int(side) for side in tensor.shape):
                continue
            places[point] = index
            if int8:
                grids[point] = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
        places[reference.logits] = int(graph.outputs[0])
        graph.outputs = sorted(set(places.values()))
        model.signatureDefs = []
        copy = folder / path.name
        copy.write_bytes(packed(model))
    interpreter = litert_interpreter(copy, threads=1)
    (image,) = interpreter.get_input_details()

    def read(picture: np.ndarray) -> dict[str, np.ndarray]:
        interpreter.set_tensor(image["index"], to_tensor(picture))
        interpreter.invoke()
        return {point: interpreter.get_tensor(place) for point, place in places.items()}

    return Values(path.name, reference, read, grids)
