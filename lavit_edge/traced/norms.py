"""Batch norms and scales, folded into the layer whose output they alone read; other norms become a product and a sum."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from lavit_edge.traced.layers import place
from lavit_edge.traced.nodes import Insert, arguments, get_value, is_call, path_of, shape

aten = torch.ops.aten
NORMS = (aten.batch_norm, aten._native_batch_norm_legit_no_training)
LEAST_STEP = 2.0**-17  # of int8 weights: fp16, in which Core ML keeps it, is then off by 0.4 % at the most
RESHAPES = (aten.reshape, aten.view, aten.flatten, aten.unflatten, aten.squeeze, aten.unsqueeze)


def fold_batch_norms(graph_module: fx.GraphModule) -> list[str]:
    """Folds every batch norm that it can, see :func:`layer_before`.

    Returns:
        How many, where there are any; and where the others are, a line each with the reason.
    """
    folded, left = 0, []
    for node in list(graph_module.graph.nodes):
        if not is_call(node, *NORMS):
            continue
        result, named = node, arguments(node)
        if is_call(node, aten._native_batch_norm_legit_no_training):
            (result,) = (user for user in node.users if is_call(user, operator.getitem))
        mean, variance = (get_value(graph_module, named[name].target).detach() for name in ("running_mean", "running_var"))
        gain, shift = (_tensor(graph_module, named[name], mean, start) for name, start in (("weight", 1.0), ("bias", 0.0)))
        if isinstance(before := layer_before(graph_module, node.args[0]), Before) and before.axis == 1:
            layer = before.layer
            fuse = fuse_conv_bn_weights if isinstance(layer, nn.Conv2d) else fuse_linear_bn_weights
            layer.weight, layer.bias = fuse(layer.weight, layer.bias, mean, variance, named["eps"], gain, shift)
            result.replace_all_uses_with(node.args[0])
            folded += 1
        else:
            reason = before if isinstance(before, str) else f"its channels are not those of {before.path}"
            scale = gain / torch.sqrt(variance + named["eps"])
            product = _as_product(graph_module, node, scale, shift - mean * scale)
            product.meta = {**product.meta, **{key: result.meta[key] for key in ("val",) if key in result.meta}}
            result.replace_all_uses_with(product)
            left.append(f"batch norm {path_of(node) or node.name}: {reason}: it is computed in float")
        if result is not node:
            graph_module.graph.erase_node(result)
        graph_module.graph.erase_node(node)
    total = folded + len(left)
    return [f"{folded} of {total} batch norms folded into the layers before them", *left] if total else []


@dataclass(frozen=True)
class Before:
    """A layer, its path, and the axis of its channels in a value that is its output in another shape; None: mixed with others."""

    layer: nn.Linear | nn.Conv2d
    path: str
    axis: int | None


def layer_before(graph_module: fx.GraphModule, value: Any) -> Before | str:
    """The layer whose output, through reshapes and transposes, is ``value``, when a single operator reads that.

    Where there is none: the reason.
    """
    chain, source = [], value
    while isinstance(source, fx.Node) and (is_call(source, *RESHAPES, aten.transpose, aten.permute, aten.contiguous)):
        chain.append(source)
        source = source.args[0]
    layer = graph_module.get_submodule(str(source.target)) if isinstance(source, fx.Node) and source.op == "call_module" else None
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        return "no convolution or linear map is right before it"
    if any(len(node.users) > 1 for node in (source, *chain)):
        return f"{source.target} is read by others, too"
    axis: int | None = (len(shape(source) or ()) - 1) if isinstance(layer, nn.Linear) else 1
    for node in reversed(chain):
        axis = _follow(node, axis)
    return Before(layer, str(source.target), axis)


def _follow(node: fx.Node, axis: int | None) -> int | None:
    """Where an axis of a node's input is in its output; None where it is mixed with others."""
    before, after, dims = shape(node.args[0]), shape(node), cast(Any, node.args[1:])
    if axis is None or before is None or after is None or is_call(node, aten.contiguous):
        return axis
    if is_call(node, aten.transpose):
        first, second = (dim % len(before) for dim in dims)
        return {first: second, second: first}.get(axis, axis)
    if is_call(node, aten.permute):
        return [dim % len(before) for dim in dims[0]].index(axis)
    found = [
        place for place, size in enumerate(after) if size == before[axis] and math.prod(after[:place]) == math.prod(before[:axis])
    ]
    return found[-1] if found else None


@torch.no_grad()
def fold_scales(graph_module: fx.GraphModule) -> list[str]:
    """Folds stored numbers, one or one a channel, that a layer's output alone is multiplied by or added to into the layer.

    LayerScale (Touvron et al., 2021, arXiv 2103.17239) is one: in float between an int8 layer and its residual addition, it would
    keep that in float, too.

    Returns:
        How many scales, where there are any; and where others are left, a line each with the reason.
    """
    folded, left = 0, []
    for node in list(graph_module.graph.nodes):
        if not is_call(node, aten.mul, aten.div, aten.add, aten.sub) or len(node.args) != 2 or node.kwargs:
            continue
        value, stored = node.args
        if is_call(node, aten.mul, aten.add) and _stored(graph_module, stored) is None:
            value, stored = stored, value
        factor, before = _stored(graph_module, stored), layer_before(graph_module, value)
        if factor is None or not isinstance(before, Before) or shape(node) != shape(value):
            continue
        long = [axis for axis, size in enumerate(factor.shape, len(shape(value) or ()) - factor.dim()) if size > 1]
        if long not in ([], [before.axis]):
            continue
        layer, factor = before.layer, factor.to(before.layer.weight.dtype).flatten()
        if is_call(node, aten.add, aten.sub):
            shift = (-factor if is_call(node, aten.sub) else factor).expand(len(layer.weight))
            layer.bias = nn.Parameter(shift.clone() if layer.bias is None else layer.bias + shift)
        else:
            factor = 1 / factor if is_call(node, aten.div) else factor
            weight = layer.weight * factor.reshape(-1, *[1] * (layer.weight.dim() - 1))
            if weight.flatten(1).abs().amax(1).median() / 127 < LEAST_STEP:
                left.append(f"the scale behind {before.path} is too small for weights in fp16: it is computed in float")
                continue
            layer.weight = nn.Parameter(weight)
            layer.bias = None if layer.bias is None else nn.Parameter(layer.bias * factor)
            folded += 1
        node.replace_all_uses_with(value)
        graph_module.graph.erase_node(node)
    total = folded + len(left)
    return [f"{folded} of {total} scales folded into the layers before them", *left] if total else []


def _stored(graph_module: fx.GraphModule, value: Any) -> Tensor | None:
    """A number, or a stored tensor of numbers."""
    if isinstance(value, int | float):
        return torch.tensor(float(value))
    tensor = get_value(graph_module, value.target) if isinstance(value, fx.Node) and value.op == "get_attr" else None
    return tensor.detach() if isinstance(tensor, Tensor) and tensor.is_floating_point() else None


def _tensor(graph_module: fx.GraphModule, node: Any, like: Tensor, start: float) -> Tensor:
    """What a batch norm that learnt has, or what one that did not starts from."""
    return get_value(graph_module, node.target).detach() if isinstance(node, fx.Node) else torch.full_like(like, start)


def _as_product(graph_module: fx.GraphModule, norm: fx.Node, scale: Tensor, shift: Tensor) -> fx.Node:
    """``x * scale + shift``, operators that every back end has."""
    dims = len(shape(norm.args[0]) or ())
    insert, ends = Insert(graph_module.graph, norm), []
    for name, value in (("scale", scale), ("shift", shift)):
        path = f"{path_of(norm)}.{norm.name}_{name}".lstrip(".")
        value = nn.Parameter(value.reshape(-1, *[1] * (dims - 2)).clone())
        place(graph_module, path, value)
        with graph_module.graph.inserting_before(norm):
            end = graph_module.graph.create_node("get_attr", path)
        end.meta["val"] = torch.empty_like(value, device="meta")
        ends.append(end)
    return insert(aten.add.Tensor, insert(aten.mul.Tensor, norm.args[0], ends[0]), ends[1])
