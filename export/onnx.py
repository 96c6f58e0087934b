"""ONNX: one QDQ ``.onnx`` (opset 20), and ONNX Runtime's own format beside it for phones."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from lavit_edge.export.targets import OnnxOptions
from lavit_edge.export.writing import check_fit, quiet, staged, toolchain
from lavit_edge.payload import Payload
from lavit_edge.seal import seal

# From 21 on, QuantizeLinear has an output type, and ONNX Runtime 1.31 on x86 fails on its own int8 -> uint8 rewrite of it.
OPSET = 20


def export(program: ExportedProgram, payload: Payload, path: Path, options: OnnxOptions) -> None:
    """Writes the ``.onnx`` and, unless switched off, the ``.ort`` of the same stem.

    Input ``image``: float32 ``(1, 3, size, size)`` RGB in 0..255. Output ``logits``: float32 ``(1, classes)``.

    Raises as :meth:`lavit_edge.export.targets.Target.export`.
    """
    check_fit(program, payload.contract, path, ".onnx")
    with toolchain("ONNX export", "onnx"):
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    with staged(path) as temporary, quiet():
        names: dict[str, Any] = dict(input_names=["image"], output_names=["logits"])
        exported = torch.onnx.export(program, (), dynamo=True, opset_version=OPSET, optimize=True, verbose=False, **names)
        assert exported is not None
        model = exported.model_proto
        fold_weight_transposes(model)
        _drop_traces(model)
        onnx.helper.set_model_props(model, payload.metadata())
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, temporary)
        if options.ort_format != "none":
            _save_ort(onnxruntime, temporary, options.ort_format)
            seal(temporary.with_suffix(".ort"))
        seal(temporary)


def fold_weight_transposes(model: Any) -> None:
    """Stores int8 weights, in place, the way their MatMul reads them.

    torch writes ``DequantizeLinear -> Transpose -> MatMul``; ONNX Runtime makes an int8 product of ``DequantizeLinear -> MatMul``
    only.
    """
    from onnx import numpy_helper

    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    dequantize = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored}
    users = collections.Counter(name for node in graph.node for name in node.input)
    for node in [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in dequantize]:
        source = dequantize[node.input[0]]
        weight = stored[source.input[0]]
        if users[source.output[0]] > 1 or users[weight.name] > 1:
            raise NotImplementedError(f"weight {weight.name} is used both transposed and as it is")
        order = list(next(attribute.ints for attribute in node.attribute if attribute.name == "perm"))
        value = np.ascontiguousarray(numpy_helper.to_array(weight).transpose(order))
        weight.CopyFrom(numpy_helper.from_array(value, weight.name))
        for attribute in source.attribute:
            if attribute.name == "axis":
                attribute.i = order.index(attribute.i % len(order))
        source.output[0] = node.output[0]
        graph.node.remove(node)
    del graph.value_info[:]  # holds the old shapes


def _drop_traces(model: Any) -> None:
    """Takes out the Python stack traces that torch stores with each node: 1.5 MB of lavit_nano's 7.6, and the host's paths."""
    graph = model.graph
    for item in [model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output]:
        del item.metadata_props[:]
        item.doc_string = ""


def _save_ort(onnxruntime: Any, path: Path, platform: str) -> None:
    """What ``onnxruntime.tools.convert_onnx_models_to_ort --optimization_style Fixed`` does to a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".ort"))
    options.log_severity_level = 3
    settings = {
        "session.save_model_format": "ORT",
        # x86 wants uint8 activations: with int8 ones, which suit ARM, the same model is 7 times slower there
        "session.qdqisint8allowed": "1" if platform == "arm" else "0",
    }
    for name, value in settings.items():
        options.add_session_config_entry(name, value)
    # NCHWc blocks are as wide as this host's vectors; another machine could not run them
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=["NchwcTransformer"])
