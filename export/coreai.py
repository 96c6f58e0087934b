"""Core AI: an ``.aimodel`` (iOS 27 and macOS 27), Core ML's successor, that Apple's own runtime can execute on Linux too.

Floating point is fp32 throughout: the artifact computes what the program computes, to the rounding of the last bits, and what a
device makes of it (Core AI specialises a model for the unit that it chooses) is the device's. An fp16 one would round on every
unit, sampling coordinates included (:mod:`lavit_edge.export.coreml` on what that costs), for a gain that nobody has measured.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from lavit_edge.artifact.aimodel import METADATA, decompose, require
from lavit_edge.artifact.payload import Payload
from lavit_edge.artifact.seal import seal
from lavit_edge.export.targets import CoreaiOptions, check_fit
from lavit_edge.files import staged
from lavit_edge.toolchain import converting, toolchain

# Where a value was computed in Python: paths of this machine would be in the artifact. The names of the nodes stay.
PLACES = ("stack_trace", "nn_module_stack", "source_fn_stack")
RESOURCE = re.compile(r"\bresource_\d+\b")


def export(program: ExportedProgram, payload: Payload, path: Path, options: CoreaiOptions) -> None:
    """Writes the ``.aimodel``.

    Its function ``main`` takes ``image``, float32 RGB in 0..255 of ``(1, 3, size, size)``, and gives ``logits``, float32
    ``(1, classes)``. Int8 layers stay int8 (W8A8): their weights are stored so, between quantize and dequantize.

    Raises as :meth:`lavit_edge.export.targets.Target.export`.
    """
    check_fit(program, payload.contract, path, ".aimodel")
    require()
    with toolchain("coreai-torch", "coreai"):
        import coreai_torch  # noqa: F401
    with staged(path) as temporary, converting("coreai-torch"), contextlib.redirect_stdout(io.StringIO()):
        asset = _reproducible(convert(program)).save_asset(temporary)
        asset.update_metadata(lambda metadata: _describe(metadata, payload))
        _order(temporary / METADATA)
        seal(temporary)


def convert(program: ExportedProgram) -> Any:
    """The program as coreai-torch's ``AIProgram``."""
    from coreai_torch import TorchConverter

    converter = TorchConverter()
    for operator, lower in LOWERINGS.items():
        converter.register_torch_lowering(f"quantized_decomposed::{operator}")(lower)
    decomposed = decompose(program)
    for node in decomposed.graph.nodes:
        for place in PLACES:
            node.meta.pop(place, None)
    return converter.add_exported_program(decomposed, input_names=["image"], output_names=["logits"]).to_coreai()


def _quantize(values: dict[str, Any], node: torch.fx.Node, location: Any) -> Any:
    from coreai._compiler.dialects import coreai

    x, scale, zero_point, low, high, dtype = node.args
    if (low, high, dtype) != (-128, 127, torch.int8):
        raise ValueError(f"codes of {low} to {high} in {dtype}, where Core AI rounds to all of int8")
    return coreai.quantize(values[_name(x)], *_grid(scale, zero_point), _constant(0, np.int32), loc=location)


def _dequantize(values: dict[str, Any], node: torch.fx.Node, location: Any) -> Any:
    from coreai._compiler.dialects import coreai

    x, scale, zero_point = node.args[:3]
    return coreai.dequantize(values[_name(x)], *_grid(scale, zero_point), _constant(0, np.int32), loc=location)


def _dequantize_weight(values: dict[str, Any], node: torch.fx.Node, location: Any) -> Any:
    """A scale for each channel; zero points are zeros, as in every program of ours."""
    from coreai._compiler.dialects import coreai

    x, scale, _, axis = node.args[:4]
    channels = x.meta["val"].shape[axis]  # type: ignore[union-attr]
    zeros = _constant(np.zeros(channels), np.int8), _constant(np.zeros(channels), np.float32)
    return coreai.dequantize(values[_name(x)], values[_name(scale)], *zeros, _constant(axis, np.int32), loc=location)


LOWERINGS = {
    "quantize_per_tensor.default": _quantize,
    "dequantize_per_tensor.default": _dequantize,
    "dequantize_per_channel.default": _dequantize_weight,
}


def _grid(scale: Any, zero_point: Any) -> tuple[Any, Any, Any]:
    """Scale, and zero point as code and as value: Core AI has both, and one of them is 0."""
    return _constant(scale, np.float32), _constant(zero_point, np.int8), _constant(0, np.float32)


def _constant(value: Any, dtype: Any) -> Any:
    from coreai._compiler.dialects import coreai

    return coreai.constant(np.array(value, dtype))


def _name(node: Any) -> str:
    return str(node.name)


def _reproducible(program: Any) -> Any:
    """The same program in the same bytes: coreai-core names stored arrays at random, and orders them by their names.

    By way of the text, which has every constant to the last bit and every location.
    """
    from coreai._compiler.ir import Module
    from coreai.authoring import AIProgram, Context

    text = program._module._mlir_module.operation.get_asm(enable_debug_info=True)
    names = {name: f"resource_{number}" for number, name in enumerate(dict.fromkeys(RESOURCE.findall(text)))}
    text = RESOURCE.sub(lambda found: names[found[0]], text)
    return AIProgram._from_mlir_module(Module.parse(text, Context()._mlir_context))


def _describe(metadata: Any, payload: Payload) -> None:
    for key, value in payload.metadata().items():
        metadata.set_custom(key, value)
    metadata.creation_date = None


def _order(file: Path) -> None:
    """The metadata with its keys in order: Apple's library writes them in another one each time."""
    metadata = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(metadata, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
