"""A program run operator by operator, so that it can be rounded otherwise, and what follows a changed weight computed again."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.nn import functional as F

from lavit_edge.artifact.runners import to_tensor
from lavit_edge.quantize.graph import LAYER_OPS, PREFIX
from lavit_edge.quantize.program import DEQUANTIZE, QUANTIZE
from lavit_edge.traced.nodes import get_value, is_call

Values = dict[fx.Node, Any]
Fault = tuple[str, Callable[[Tensor], Tensor]]  # path of a layer, and what becomes of its weight


class Replay:
    """
    Args:
        program: float32 ``(1, 3, size, size)`` RGB in 0..255 -> logits ``(1, classes)``.

    Attributes:
        weights: path of a linear or convolution layer -> node of its stored weight, int8 or float.
        quantized: whether the program quantises anything.
    """

    def __init__(self, program: ExportedProgram) -> None:
        module = program.module(check_guards=False)
        self.quantized = any(is_call(node, QUANTIZE) for node in module.graph.nodes)
        _fuse(module.graph)
        nodes = list(module.graph.nodes)
        self._calls = [node for node in nodes if node.op == "call_function"]
        self._stored: Values = {node: get_value(module, node.target) for node in nodes if node.op == "get_attr"}
        (self._input,) = [node for node in nodes if node.op == "placeholder"]
        self._logits = nodes[-1].args[0][0]
        self.weights: dict[str, fx.Node] = {}
        for call in self._calls:
            if is_call(call, *LAYER_OPS):
                read = call.args[1]
                weight = read if read in self._stored else next(iter(read.all_input_nodes), None)  # the latter is dequantised
                if weight not in self._stored:  # computed
                    continue
                self.weights[str(weight.target).removeprefix(PREFIX).removesuffix(".weight")] = weight
        self._after = {path: self._followers(weight) for path, weight in self.weights.items()}
        known = dict(self._stored)
        for node in self._calls:
            if known.keys() >= set(node.all_input_nodes):
                known[node] = _call(node, known)
        self._calls = [node for node in self._calls if node not in known]
        # computed once: weights that are dequantised took 30 % of a run
        self._constant = {node: value for node, value in known.items() if node not in self._stored}

    @torch.no_grad()
    def run(self, picture: NDArray[np.uint8], rounding: Callable[[Tensor], Tensor] | None = None) -> Values:
        """All values for a picture, uint8 ``(size, size, 3)``; ``rounding`` is applied to each float value as it is computed."""

        def rounded(value: Any) -> Any:
            return rounding(value) if rounding and isinstance(value, Tensor) and value.dtype == torch.float32 else value

        values = {**self._stored, **{node: rounded(value) for node, value in self._constant.items()}}
        values[self._input] = torch.from_numpy(to_tensor(picture))
        for node in self._calls:
            values[node] = rounded(_call(node, values))
        return values

    @torch.no_grad()
    def changed(self, values: Values, path: str, change: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
        """Logits ``(classes,)`` as they are with the weight of one layer changed; only what follows it is computed again."""
        values = {**values, self.weights[path]: change(values[self.weights[path]])}
        for node in self._after[path]:
            values[node] = _call(node, values)
        return self.logits(values)

    def effects(self, pixels: Tensor, faults: Collection[Fault]) -> list[Tensor]:
        """How far each fault in one layer moves the logits, less their mean, where int8 clips and does not round.

        Args:
            pixels: float32 ``(1, 3, size, size)`` in 0..255, to which gradients can be taken.

        Returns:
            ``(classes,)`` for each fault.
        """
        values = {**self._stored, **self._constant, self._input: pixels}
        for node in self._calls:
            values[node] = _call_unrounded(node, values)
        moved = []
        for path, change in faults:
            changed = {**values, self.weights[path]: change(values[self.weights[path]])}
            for node in self._after[path]:
                changed[node] = _call_unrounded(node, changed)
            difference = changed[self._logits][0] - values[self._logits][0]
            moved.append(difference - difference.mean())
        return moved

    def logits(self, values: Values) -> NDArray[np.float32]:
        """float32 ``(classes,)``."""
        logits: NDArray[np.float32] = values[self._logits][0].numpy().astype(np.float32)
        return logits

    def _followers(self, weight: fx.Node) -> list[fx.Node]:
        reached, followers = {weight}, []
        for node in self._calls:
            if not reached.isdisjoint(node.all_input_nodes):
                reached.add(node)
                followers.append(node)
        return followers


def fake_quantize(value: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    """A value as its codes have it: to the bit what the two operators give, in half their time (torch's own: thrice)."""
    return torch.round(value * (1.0 / scale)).clamp_(low - zero_point, high - zero_point).mul_(scale)


def _fuse(graph: fx.Graph) -> None:
    """Makes one operator of a quantisation and what dequantises its codes."""
    for node in graph.find_nodes(op="call_function", target=QUANTIZE):
        if all(is_call(user, DEQUANTIZE) and user.args[1:] == node.args[1:] for user in node.users):
            with graph.inserting_after(node):
                fused = graph.call_function(fake_quantize, node.args[:5])
            for unfused in list(node.users):
                unfused.replace_all_uses_with(fused)
                graph.erase_node(unfused)
            graph.erase_node(node)


def _call(node: fx.Node, values: Values) -> Any:
    arguments, named = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    return node.target(*arguments, **named)  # type: ignore[operator]


def _call_unrounded(node: fx.Node, values: Values) -> Any:
    """Like :func:`_call`; but what is quantised stays a float value, within what its codes reach."""
    if is_call(node, QUANTIZE, fake_quantize):
        arguments: Any = fx.node.map_arg(node.args[:5], values.__getitem__)
        value, scale, zero_point, low, high = arguments
        # not clamp, whose gradient takes three operators: a fifth of the time of a made picture
        return F.hardtanh(value, (low - zero_point) * scale, (high - zero_point) * scale)
    if is_call(node, DEQUANTIZE):
        return values[node.args[0]]  # type: ignore[index]
    return _call(node, values)
