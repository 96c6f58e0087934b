"""LiteRT: a ``.tflite`` that Android's own runtime runs, with XNNPACK on any CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from lavit_edge.artifact.payload import KEY, Payload
from lavit_edge.artifact.seal import seal
from lavit_edge.artifact.tflite import packed, schema
from lavit_edge.errors import UserError
from lavit_edge.export.targets import LitertOptions, check_fit
from lavit_edge.files import staged
from lavit_edge.quantize.program import DEQUANTIZE_WEIGHT, QUANTIZE
from lavit_edge.toolchain import converting, quiet, silent_stderr
from lavit_edge.traced.nodes import get_value, is_call

QUANTIZE_WEIGHT = torch.ops.quantized_decomposed.quantize_per_channel.default


def export(program: ExportedProgram, payload: Payload, path: Path, options: LitertOptions) -> None:
    """Writes the ``.tflite``.

    Its signature ``serving_default`` maps ``image``, float32 ``(1, 3, size, size)`` RGB in 0..255, to ``logits``, float32
    ``(1, classes)``. The entries of the payload are metadata buffers.

    Raises as :meth:`lavit_edge.export.targets.Target.export`.
    """
    check_fit(program, payload.contract, path, ".tflite")
    try:
        with silent_stderr(), quiet():
            import litert_torch
            from litert_torch import progress
            from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
            from litert_torch.quantize.quant_config import QuantConfig
    except ImportError as error:
        where = "in an environment of its own: what it needs does not live beside what signing and coremltools need"
        raise UserError(
            f"LiteRT's converter is not usable here ({error}); pip install 'lavit-edge[litert,litert-runtime]' {where}"
        ) from error
    progress.console.quiet = True  # it tells of each step on stdout
    how: dict[str, Any] = {}
    if any(is_call(node, QUANTIZE) for node in program.graph.nodes):
        # nothing is quantised by it: it says that the graph is, without which weights stay float
        scheme = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
        how["quant_config"] = QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(scheme))
    size = payload.contract.size
    with staged(path) as temporary, silent_stderr(), converting("litert-torch"):
        model = litert_torch.convert(Named(program), sample_kwargs={"image": torch.zeros(1, 3, size, size)}, **how)
        temporary.write_bytes(with_metadata(model.model_content(), payload))
        seal(temporary)


class Named(nn.Module):
    """A program as the converter wants it: a module with named values, whose nodes' names become those of the file's tensors.

    A stored int8 weight becomes float codes that are quantised again, which gives the same bits: the converter takes quantised
    constants in no other way.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.program = program.module(check_guards=False)
        graph = self.program.graph
        for node in list(graph.nodes):
            if node.op == "call_function":
                node.meta["nn_module_stack"] = {node.name: ("", node.name)}  # what the converter names tensors after
            if is_call(node, DEQUANTIZE_WEIGHT):
                self._quantised_again(node)
        graph.eliminate_dead_code()
        self.program.recompile()

    def _quantised_again(self, node: fx.Node) -> None:
        stored, scale, zero_point, axis, *rest = node.args
        codes, scales = (get_value(self.program, each.target).detach() for each in (stored, scale))  # type: ignore[union-attr]
        shape = [-1 if index == axis else 1 for index in range(codes.dim())]
        name = f"{node.name}_weight"
        self.program.register_buffer(name, codes.float() * scales.reshape(shape))
        with self.program.graph.inserting_before(node):
            value = self.program.graph.get_attr(name)
            again = self.program.graph.call_function(QUANTIZE_WEIGHT, (value, scale, zero_point, axis, *rest))
        node.args = (again, *node.args[1:])

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        with fx.traceback.preserve_node_meta():
            return {"logits": fx.Interpreter(self.program).run(image)}

    def eval(self) -> Named:  # the converter calls it, and an exported module refuses
        return self


def with_metadata(data: bytes, payload: Payload) -> bytes:
    """A ``.tflite`` with the payload's entries as metadata, a buffer for each."""
    generated = schema()
    model = generated.ModelT.InitFromPackedBuf(data, 0)
    for name, value in payload.entries().items():
        entry, buffer = generated.MetadataT(), generated.BufferT()
        entry.name, entry.buffer = KEY + name, len(model.buffers)
        buffer.data = np.frombuffer(value.encode() if isinstance(value, str) else value, np.uint8)
        model.metadata.append(entry)
        model.buffers.append(buffer)
    return packed(model)
