"""Which layer made the tensor that another layer reads, from the float program.

Only a layer's own output can be int8 on its way to the next one: reshapes and transposes hand it on, and a ReLU or ReLU6 that
alone follows a layer is done by its rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx
from torch.export import ExportedProgram

from lavit_edge.models.blocks import Add
from lavit_edge.traced.nodes import clamp_of, hands_on, is_call

LAYER_OPS = (torch.ops.aten.linear, torch.ops.aten.conv2d)
PREFIX = "model."  # of the names of the model inside Deployed


class LayerGraph:
    """Layers by their module path in the model (in its ``deploy()`` form): ``nn.Linear``, ``nn.Conv2d`` and ``Add``.

    Args:
        program: that of ``Deployed``.

    Attributes:
        inputs: path of a linear or convolution layer -> path of the layer that made its input, or else the name of the node.
        clamps: path of a layer that a ReLU, ReLU6 or another clamp alone follows -> the least and largest value it lets pass.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.nodes = [node for node in program.graph.nodes if node.op == "call_function"]
        self._weights = program.graph_signature.inputs_to_parameters
        self.inputs = {}
        for node in self.nodes:
            if (path := self.layer(node)) and is_call(node, *LAYER_OPS):
                source = node.args[0]
                while self.hands_on(source):
                    source = source.all_input_nodes[0]
                self.inputs[path] = self.layer(source) or source.name
        self.clamps = {
            self.layer(node.all_input_nodes[0]): clamp for node in self.nodes if (clamp := clamp_of(node)) and self.hands_on(node)
        }

    def layer(self, node: fx.Node) -> str | None:
        """Path of the layer whose output a node is, None for other operators."""
        if is_call(node, *LAYER_OPS):
            weight = self._weights.get(node.args[1].name)  # type: ignore[union-attr]
            return weight.removeprefix(PREFIX).removesuffix(".weight") if weight else None  # None: made from the picture
        if is_call(node, torch.ops.aten.add):
            path, kind = list(node.meta["nn_module_stack"].values())[-1]
            return path.removeprefix(PREFIX) if kind == f"{Add.__module__}.{Add.__qualname__}" else None
        return None

    def hands_on(self, node: fx.Node) -> bool:
        """Whether a node's output is the same int8 codes as its input's."""
        return hands_on(node) and (clamp_of(node) is None or self.layer(node.all_input_nodes[0]) is not None)

    def tensors(self) -> Iterator[tuple[str | None, set[str | None]]]:
        """For each tensor: the path of the layer that made it, and of those that read it; None for operators that are always
        float."""

        def users(node: fx.Node) -> Iterator[fx.Node]:
            for user in node.users:
                yield from users(user) if self.hands_on(user) else [user]

        for node in self.nodes:
            if not self.hands_on(node):
                yield self.layer(node), {self.layer(user) for user in users(node)}
