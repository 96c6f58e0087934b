"""In which block of its model each operator of an artifact is, from what the artifact itself says.

Operators with stored weights tell: ONNX keeps the names of weights; a ``.pte`` keeps none, but its provenance names the model,
whose layers with weights are called in the same order as the operators with weights. All other operators count to the block of
the last one with weights before them, so that a residual addition counts to the block in front of it.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Any

from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError
from lavit_edge.models.paths import part_of
from lavit_edge.verdict.plan import Op

NO_HANDLE = "65535"  # a node that ExecuTorch put in to change the layout
# ExecuTorch's operators with weights -> torch's layers
LAYERS = {
    "FullyConnected": "Linear",
    "Conv2d": "Conv2d",
    "DepthwiseConv2d": "Conv2d",
    "native_layer_norm": "LayerNorm",
}


def onnx_block(names: Iterable[str]) -> str | None:
    """The block of an ONNX node by the names of its stored inputs; None where they tell none."""
    for name in names:
        path = name.removeprefix("model.").rpartition(".")[0]
        if path:
            return part_of(path)
    return None


def pte_blocks(ops: tuple[Op, ...], provenance: dict[str, Any], contract: InputContract) -> list[str]:
    """Blocks of the operators of a ``.pte``, in their order.

    Raises:
        UserError: the provenance names no model of this package, or one with other layers.
    """
    layers = {kind: collections.deque[tuple[str, int]]() for kind in LAYERS.values()}
    for kind, path, numel in _model_layers(provenance, contract):
        layers[kind].append((path, numel))
    handles = _handles(ops)
    anchors: dict[int, str] = {}
    for index in sorted(range(len(ops)), key=handles.__getitem__):  # as traced; kernels, which have no handles, as executed
        op = ops[index]
        weights = [array.elements for array in op.reads[1:2] if array.constant]
        if op.name in LAYERS and weights:
            queue = layers[LAYERS[op.name]]
            path, numel = queue.popleft() if queue else ("beyond the last", 0)
            if weights != [numel]:
                raise UserError(f"its {op.name} {path} is not that of the model that it names")
            anchors[index] = part_of(path)
    if left := [path for queue in layers.values() for path, _ in queue]:
        raise UserError(f"it lacks {left[0]} of the model that it names")
    blocks, current = [""] * len(ops), "model"
    for index in sorted(range(len(ops)), key=lambda index: (ops[index].instruction, handles[index])):
        current = anchors.get(index, current)
        blocks[index] = current
    return blocks


def _handles(ops: tuple[Op, ...]) -> list[int]:
    """Debug handles: the order of the exported program. A change of layout has that of its neighbour, a kernel 0."""
    handles: list[int] = []
    for op in ops:
        inherits = op.label == NO_HANDLE and handles
        handles.append(handles[-1] if inherits else int(op.label or 0))
    return handles


def _model_layers(provenance: dict[str, Any], contract: InputContract) -> list[tuple[str, str, int]]:
    """Kind, path and number of weights of the model's layers, in the order of their calls."""
    import torch

    from lavit_edge.models import create_model
    from lavit_edge.models.deployed import Deployed

    spec = provenance.get("model")
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise UserError("its provenance names no model")
    options = spec.get("options") or {}
    try:
        model = create_model(spec["name"], num_classes=len(contract.labels), image_size=contract.size, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"its provenance names a model that cannot be built ({error})") from error
    deployed, called = Deployed(model, contract).eval(), []
    for path, module in deployed.model.named_modules():
        if type(module).__name__ in LAYERS.values():

            def note(module: Any, inputs: Any, path: str = path) -> None:
                called.append((type(module).__name__, path, module.weight.numel()))

            module.register_forward_pre_hook(note)
    with torch.no_grad():
        deployed(torch.zeros(1, 3, contract.size, contract.size))
    return called
