"""Nodes of a graph of ATen operators: what they call, what they give, and new ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Reversible
from typing import Any

import torch
from torch import Tensor, fx

SHAPE_OPS = frozenset(
    getattr(torch.ops.aten, name)
    for name in ("reshape", "view", "flatten", "unflatten", "transpose", "permute", "squeeze", "unsqueeze", "contiguous")
)


def is_call(node: fx.Node, *operators: Callable) -> bool:
    """Whether ``node`` calls one of ``operators``, given as an overload or as a packet of overloads."""
    return node.op == "call_function" and (node.target in operators or getattr(node.target, "overloadpacket", None) in operators)


def clamp_of(node: fx.Node) -> tuple[float, float] | None:
    """Least and largest value of a ReLU, ReLU6 or another clamp by numbers on either side of zero; None for other operators."""
    if is_call(node, torch.ops.aten.relu):
        return 0.0, math.inf
    if is_call(node, torch.ops.aten.relu6):
        return 0.0, 6.0
    if not is_call(node, torch.ops.aten.hardtanh, torch.ops.aten.clamp):
        return None
    _, low, high = arguments(node).values()
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    return (
        (float(low), float(high)) if isinstance(low, int | float) and isinstance(high, int | float) and low <= 0 <= high else None
    )


def zeros_around(node: fx.Node) -> list[int] | None:
    """How many zeros a padding operator puts before and behind each axis, the last one first; None for other operators."""
    if not is_call(node, torch.ops.aten.constant_pad_nd, torch.ops.aten.pad):
        return None
    named = arguments(node)
    sides = list(named["pad"])
    zeros = named.get("mode", "constant") == "constant" and not named["value"]
    return sides if zeros and all(isinstance(side, int) and side >= 0 for side in sides) else None


def moves(node: fx.Node) -> bool:
    """Whether a node only moves the codes of its input, and puts zeros around them at the most, which every grid has."""
    return is_call(node, *SHAPE_OPS) or zeros_around(node) is not None


def hands_on(node: fx.Node) -> bool:
    """Whether a node gives the int8 codes of its input: it moves them, or is a ReLU or the like of what nobody else reads."""
    clamps = clamp_of(node) is not None and isinstance(node.args[0], fx.Node) and len(node.args[0].users) == 1
    return moves(node) or clamps


def behind(nodes: Iterable[fx.Node], some: Collection[fx.Node]) -> set[fx.Node]:
    """Those of ``nodes``, which are in order of execution, that one of ``some`` comes before."""
    found: set[fx.Node] = set()
    for node in nodes:
        if any(source in found or source in some for source in node.all_input_nodes):
            found.add(node)
    return found


def before(nodes: Reversible[fx.Node], some: Collection[fx.Node]) -> set[fx.Node]:
    """Those of ``nodes``, which are in order of execution, that one of ``some`` comes behind."""
    found: set[fx.Node] = set()
    for node in reversed(nodes):
        if any(user in found or user in some for user in node.users):
            found.add(node)
    return found


def shape(node: Any) -> tuple[int, ...] | None:
    """Of the tensor that a node gives, for the batch that :class:`Shapes` ran; None for what is no tensor."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) else None


def path_of(node: fx.Node) -> str:
    """Path of the module in whose ``forward`` a node was traced; empty for the outermost."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return stack[-1][0] if stack else ""


def get_value(module: torch.nn.Module, target: Any) -> Any:
    """The parameter, buffer or module at a dotted path."""
    for name in str(target).split("."):
        module = getattr(module, name)
    return module


def arguments(node: fx.Node) -> dict[str, Any]:
    """All arguments of an ATen operator by name, its defaults included."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = dict(zip((argument.name for argument in schema), node.args, strict=False)) | dict(node.kwargs)
    return {argument.name: given.get(argument.name, argument.default_value) for argument in schema}


class Shapes(fx.Interpreter):
    """Runs a graph and notes in ``node.meta["val"]`` what each node gave: of a tensor its shape and type alone."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["val"] = fx.node.map_aggregate(
            result,
            lambda value: torch.empty_like(value, device="meta") if isinstance(value, Tensor) else value,
        )
        return result


class Insert:
    """Puts calls in front of a node, their shapes and module path noted."""

    def __init__(self, graph: fx.Graph, before: fx.Node) -> None:
        self.graph, self.before = graph, before

    def __call__(self, operator: Any, *args: Any) -> fx.Node:
        with self.graph.inserting_before(self.before):
            node = self.graph.call_function(operator, args)
        node.meta["nn_module_stack"] = self.before.meta.get("nn_module_stack", {})
        node.meta["val"] = operator(*fx.node.map_arg(args, lambda argument: argument.meta["val"]))
        return node

    def reshape(self, node: fx.Node, *sizes: int) -> fx.Node:
        """``node`` in another shape; a reshape of a reshape is one."""
        while is_call(node, torch.ops.aten.reshape):
            node = node.args[0]  # type: ignore[assignment]
        given = shape(node)
        if given is not None and given[1:] == sizes[1:]:
            return node
        return self(torch.ops.aten.reshape.default, node, list(sizes))
