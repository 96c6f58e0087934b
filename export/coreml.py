"""Core ML: an ``.mlpackage`` (ML program, iOS 17 and macOS 14) that Vision takes as an image classifier, logits included."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import fx
from torch.export import ExportedProgram

from lavit_edge.artifact.payload import Payload
from lavit_edge.artifact.seal import seal
from lavit_edge.export.targets import CoremlOptions, check_fit
from lavit_edge.files import staged
from lavit_edge.quantize.program import DEQUANTIZE, QUANTIZE
from lavit_edge.toolchain import converting, toolchain
from lavit_edge.traced.nodes import is_call, shape

PROBABILITIES = "probabilities"


def export(program: ExportedProgram, payload: Payload, path: Path, options: CoremlOptions) -> None:
    """Writes the ``.mlpackage``.

    Its input ``image`` is an RGB picture of ``size`` x ``size`` pixels. Its outputs are ``classLabel``, ``classLabel_probs``
    (label -> probability, by the contract's temperature) and ``logits``, float32 ``(1, classes)``. Floating point is fp16 inside,
    but for sampling and its coordinates, which are fp32; int8 layers stay int8 (W8A8).

    Raises as :meth:`lavit_edge.export.targets.Target.export`.
    """
    contract = payload.contract
    check_fit(program, contract, path, ".mlpackage")
    with toolchain("coremltools", "coreml"):
        import coremltools as ct
        from coremltools.converters.mil import Builder as mb
        from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource
    with staged(path) as temporary, converting("coremltools"):
        # In two steps, since ct.convert takes a classifier with one output only: to MIL, then softmax beside the logits.
        mil = ct.convert(
            five_axes(program.run_decompositions({})),
            convert_to="milinternal",
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.transform.FP16ComputePrecision(op_selector=_half),
            inputs=[ct.ImageType(name="image", shape=(1, 3, contract.size, contract.size), color_layout=ct.colorlayout.RGB)],
            outputs=[ct.TensorType(name="logits", dtype=np.float32)],
        )
        main = mil.functions["main"]
        scopes = ScopeInfo(ScopeSource.EXIR_STACK_TRACE, [None]), ScopeInfo(ScopeSource.EXIR_DEBUG_HANDLE, [None])
        with main, mb.scope(*scopes):  # an operation without these scopes is refused when the program came from torch.export
            logits = main.outputs[0]
            scaled = logits if contract.temperature == 1 else mb.mul(x=logits, y=np.float32(1 / contract.temperature))
            main.set_outputs([logits, mb.softmax(x=scaled, axis=-1, name=PROBABILITIES)])
        main.output_types = None  # coremltools 9.0 reads it by position, and the classifier adds an output: IndexError
        model = ct.convert(
            mil,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS17,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
            classifier_config=ct.ClassifierConfig(list(contract.labels), predicted_probabilities_output=PROBABILITIES),
        )
        model.user_defined_metadata.update(payload.metadata())
        model.save(str(temporary))
        # no part of the package (its manifest does not list it), yet 0.3 MB even for a tiny model
        (temporary / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
        _make_reproducible(temporary, model.get_spec())
        seal(temporary)


def five_axes(program: ExportedProgram) -> ExportedProgram:
    """Takes axes of one element out of values with more than five axes, in place, since Core ML takes five. What is computed in
    more, not moved alone, stays as it is.

    Windows of a map are cut by six (Swin, MobileViT), of which the first is the picture's number.
    """
    aten = torch.ops.aten
    reshapes, orders = (aten.view, aten._unsafe_view, aten.unsqueeze), (aten.permute, aten.transpose)
    same = (aten.clone, QUANTIZE, DEQUANTIZE)
    large = {node: list(shape(node) or ()) for node in program.graph.nodes if len(shape(node) or ()) > 5}
    for node, sides in large.items():
        if not is_call(node, *reshapes, *orders, *same) or sides.count(1) < len(sides) - 5:
            return program
        if not all(user in large or is_call(user, *reshapes) for user in node.users):
            return program
    left: dict[fx.Node, list[int]] = {}  # axes of a value that stay
    for node, sides in large.items():
        source: Any = node.args[0]
        if is_call(node, *reshapes):
            units = [axis for axis, side in enumerate(sides) if side == 1][: len(sides) - 5]
            left[node] = [axis for axis in range(len(sides)) if axis not in units]
            node.target, node.args = aten.view.default, (source, [sides[axis] for axis in left[node]])
        elif is_call(node, *orders):
            order = list(range(len(sides)))
            if is_call(node, aten.permute):
                order = [axis % len(sides) for axis in cast(Any, node.args[1])]
            else:
                first, second = cast(Any, node.args[1:])
                order[first], order[second] = order[second], order[first]
            left[node] = [axis for axis, before in enumerate(order) if before in left[source]]
            node.target = aten.permute.default
            node.args = (source, [left[source].index(order[axis]) for axis in left[node]])
        else:
            left[node] = left[source]
        node.meta["val"] = node.meta["val"].reshape([sides[axis] for axis in left[node]])
    program.graph_module.recompile()
    return program


def _half(operation: Any) -> bool:
    """Whether an operation runs in fp16: all do but ``resample`` and the chain of operations that leads to its coordinates alone.

    A coordinate is near 1 at the border, where fp16 counts in steps of 2^-11: 0.006 pixels of a 24 x 24 map. A trained lit_nano
    came to 57.7 instead of 56.6 dB from fp32 on 500 pictures, one of random weights to 54.7 instead of 50.2. It costs two casts a
    sampling.
    """
    while operation.op_type != "resample":
        users = [user for output in operation.outputs for user in output.child_ops]
        if len(users) != 1 or (users[0].op_type == "resample" and users[0].x in operation.outputs):
            return True
        operation = users[0]
    return False


def _make_reproducible(package: Path, specification: Any) -> None:
    """The same program in the same bytes: protobuf writes maps in random order, and the manifest names its items at random.

    The manifest is laid out as Core ML's own library does: coremltools writes it anew whenever it opens a package.
    """
    (package / "Data" / "com.apple.CoreML" / "model.mlmodel").write_bytes(specification.SerializeToString(deterministic=True))
    file = package / "Manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    names = {old: str(uuid.uuid5(uuid.NAMESPACE_URL, item["path"])) for old, item in manifest["itemInfoEntries"].items()}
    manifest["itemInfoEntries"] = {names[old]: item for old, item in manifest["itemInfoEntries"].items()}
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    file.write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n", encoding="utf-8")
