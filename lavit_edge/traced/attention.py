"""Attention with scores in three axes, ``(B*H, N, M)``, through ``bmm``, as this package's own models have it.

So products and softmax have the same axes, and the reshapes between them cancel. (XNNPACK's defect with a softmax of four axes is
gone around by ``export/executorch.py`` in whatever program comes.)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from lavit_edge.traced.nodes import Insert, arguments, is_call, shape

aten = torch.ops.aten
HIDDEN = -1e4  # what a mask adds to a score: fp16 has it, and softmax makes 0 of it


def masks_as_numbers(graph_module: fx.GraphModule) -> None:
    """Of fused attention: a causal or a boolean mask becomes numbers that are added to the scores."""
    for node in graph_module.graph.find_nodes(op="call_function", target=aten.scaled_dot_product_attention.default):
        named, insert = arguments(node), Insert(graph_module.graph, node)
        (*_, rows, _), (*_, columns, _) = shape(named["query"]) or (), shape(named["key"]) or ()
        mask = named["attn_mask"]
        if named["is_causal"]:
            mask = insert(aten.triu.default, insert(aten.full.default, [rows, columns], HIDDEN), 1)
        elif mask is not None and mask.meta["val"].dtype == torch.bool:
            mask = insert(aten.where.Scalar, mask, 0.0, HIDDEN)
        node.args = (*node.args[:3], mask)
        node.kwargs = {name: value for name, value in node.kwargs.items() if name not in ("attn_mask", "is_causal")}


def attention_in_three_axes(graph_module: fx.GraphModule) -> None:
    """Rewrites fused attention, products of two ``(B, H, N, M)`` and softmaxes over the last of four axes, in place."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        insert = Insert(graph, node)
        if is_call(node, aten.scaled_dot_product_attention):
            new = _fused(insert, arguments(node))
        elif is_call(node, aten.matmul):
            new = _product(insert, *node.args[:2])
        elif is_call(node, aten.softmax):
            new = _softmax(insert, node)
        elif is_call(node, aten.add):
            new = _table(insert, *node.args[:2])
        else:
            continue
        if new is not None:
            node.replace_all_uses_with(new)
            graph.erase_node(node)
    graph.eliminate_dead_code()


def _fused(insert: Insert, named: dict[str, Any]) -> fx.Node | None:
    query, key, value, mask = (named[name] for name in ("query", "key", "value", "attn_mask"))
    sizes = [shape(each) for each in (query, key, value)]
    if any(size is None or len(size) not in (3, 4) for size in sizes) or named["enable_gqa"]:
        return None
    (*lead, rows, width), (*_, columns, _), (*_, depth) = sizes  # type: ignore[misc]
    if any(size[:-2] != tuple(lead) for size in sizes):  # type: ignore[index]
        return None
    scale = named["scale"] if named["scale"] is not None else 1 / math.sqrt(width)
    keys = insert(aten.transpose.int, insert.reshape(key, -1, columns, width), 1, 2)
    scores = insert(aten.bmm.default, insert(aten.mul.Tensor, insert.reshape(query, -1, rows, width), scale), keys)
    if mask is not None:
        scores = insert.reshape(scores, -1, *lead[1:], rows, columns)
        scores = _table(insert, scores, mask) or insert(aten.add.Tensor, scores, mask)
        scores = insert.reshape(scores, -1, rows, columns)
    weights = insert(aten.softmax.int, scores, -1)
    mixed = insert(aten.bmm.default, weights, insert.reshape(value, -1, columns, depth))
    return insert.reshape(mixed, -1, *lead[1:], rows, depth)


def _product(insert: Insert, left: Any, right: Any) -> fx.Node | None:
    first, second = shape(left), shape(right)
    if first is None or second is None or len(first) != 4 or first[:2] != second[:2]:
        return None
    product = insert(aten.bmm.default, insert.reshape(left, -1, *first[2:]), insert.reshape(right, -1, *second[2:]))
    return insert.reshape(product, -1, first[1], first[2], second[3])


def _softmax(insert: Insert, node: fx.Node) -> fx.Node | None:
    size = shape(node.args[0])
    if size is None or len(size) != 4 or node.args[1] not in (-1, 3):
        return None
    weights = insert(aten.softmax.int, insert.reshape(node.args[0], -1, *size[2:]), -1)  # type: ignore[arg-type]
    return insert.reshape(weights, -1, *size[1:])


def _table(insert: Insert, scores: Any, table: Any) -> fx.Node | None:
    """Scores ``(B, H, N, M)`` of a product, and a stored ``(H, N, M)``, added with heads and rows as one axis: XNNPACK would lay
    out the scores with heads last but not the table (``models/blocks.per_head``)."""
    size, stored = shape(scores), shape(table)
    if size is None or stored is None or len(size) != 4 or table.op != "get_attr" or stored[-3:] != size[1:]:
        return None
    if math.prod(stored) != math.prod(size[1:]) or size[2] == 1:
        return None
    rows = insert.reshape(table, size[1] * size[2], size[3])
    return insert.reshape(insert(aten.add.Tensor, insert.reshape(scores, -1, size[1] * size[2], size[3]), rows), -1, *size[1:])
