"""Cross-layer equalisation: the channels of a tensor reach about equally far, so that one scale per tensor suits them all.

An int8 tensor has one scale, and a channel whose values stay far below the tensor's largest is left a few of the 256 codes. But
where linear maps alone make and read a tensor, each of its channels may be counted in a unit of its own: rows of the layers that
make it are multiplied, columns of those that read it divided, and the model computes the same (Nagel et al., ICCV 2019, arXiv
1906.04721). ReLUs, additions and means over the map keep the unit, so that in ``lavit_mobile`` each stretch of the residual
stream from one depthwise convolution to the next is such a tensor. Layer norms, GELU, softmax and attention's products do not.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.graph import LAYER_OPS
from lavit_edge.quantize.program import export_program
from lavit_edge.traced.nodes import SHAPE_OPS, is_call, zeros_around

aten = torch.ops.aten


@dataclass(eq=False)
class Channels:
    """Tensors whose channels are counted in the same units.

    Attributes:
        axes: node -> its axis of channels.
        makers: names of the parameters whose first axis are these channels.
        readers: name of a weight -> the number of the channel that it multiplies, ``(out, in / groups)``.
        bound: whether something else depends on the units.
    """

    axes: dict[fx.Node, int] = field(default_factory=dict)
    makers: list[str] = field(default_factory=list)
    readers: dict[str, Tensor] = field(default_factory=dict)
    bound: bool = False


@torch.no_grad()
def equalize(deployed: Deployed, pictures: Sequence[Tensor]) -> Deployed:
    """A copy of ``deployed`` that computes the same, in units that bring the reaches of a tensor's channels nearer to each other.

    Where no units can be chosen it is ``deployed`` itself.

    A channel's reach is its largest absolute value over the pictures. Units also weigh the columns of the weights that read the
    tensor, which have one scale per row. So each ratio of reaches becomes its square root, as SmoothQuant shares (Xiao et al.,
    2023, arXiv 2211.10438): equal reaches were no better for activations, and cost weights 3 dB.

    Channels that use the range up to its ends leave no room for what the pictures do not show: with a few dozen of them an unseen
    picture is clipped more often than without (docs/int8.md).

    Args:
        pictures: ``(1, 3, size, size)`` float32 RGB in 0..255 each.
    """
    model = copy.deepcopy(deployed).eval()
    program = export_program(model, pictures[0].shape[-1])
    groups = [group for group in channel_groups(program) if group.makers and group.readers and not group.bound]
    if not groups:
        return deployed
    parameters = dict(model.named_parameters())
    for group, reach in zip(groups, _reaches(program, pictures, groups), strict=True):
        unit = torch.where(reach > 0, (reach.max() / reach).sqrt(), 1.0)
        for name in group.makers:
            parameters[name].data *= unit.reshape(-1, *[1] * (parameters[name].dim() - 1))
        for name, channels in group.readers.items():
            parameters[name].data /= unit[channels].reshape(*channels.shape, *[1] * (parameters[name].dim() - 2))
    return model


def channel_groups(program: ExportedProgram) -> list[Channels]:
    """Every tensor of a program in exactly one group."""
    parameters = program.graph_signature.inputs_to_parameters
    groups: dict[fx.Node, Channels] = {}

    def join(node: fx.Node, axis: int, group: Channels) -> None:
        other = groups.setdefault(node, group)
        if other is group:
            group.bound |= group.axes.setdefault(node, axis) != axis
            return
        group.bound |= other.bound or other.axes[node] != axis
        group.axes |= other.axes
        group.makers += other.makers
        group.readers |= other.readers
        groups.update(dict.fromkeys(other.axes, group))

    for node in program.graph.nodes:
        sources = node.all_input_nodes
        if is_call(node, *LAYER_OPS) and all(source.name in parameters and len(source.users) == 1 for source in sources[1:]):
            axis = 1 if is_call(node, aten.conv2d) else node.meta["val"].dim() - 1
            names = [parameters[source.name] for source in sources[1:]]
            join(sources[0], axis, Channels(readers={names[0]: _columns(node, sources[1].meta["val"])}))
            join(node, axis, Channels(makers=names))
        elif (axes := _carried(node, {source: groups[source].axes[source] for source in sources})) is not None:
            group = Channels()
            for member, axis in axes.items():
                join(member, axis, group)
        else:
            for member in (node, *sources):
                join(member, groups[member].axes[member] if member in groups else 0, Channels(bound=True))
    return list(dict.fromkeys(groups.values()))


def _columns(layer: fx.Node, weight: Tensor) -> Tensor:
    """Number of the input channel that each column of each row of a layer's weight multiplies, ``(out, in / groups)``."""
    groups = layer.args[6] if is_call(layer, aten.conv2d) and len(layer.args) > 6 else 1
    assert isinstance(groups, int)
    out, width = weight.shape[:2]
    return torch.arange(out)[:, None] // (out // groups) * width + torch.arange(width)


def _carried(node: fx.Node, axes: dict[fx.Node, int]) -> dict[fx.Node, int] | None:
    """The axes of channels of a node and its sources if it keeps their units, given those of the sources; else None."""
    if not axes or not all(isinstance(source.meta["val"], Tensor) for source in axes):  # unbind gives a list
        return None
    (source, axis), *others = axes.items()
    shape = source.meta["val"].shape
    if is_call(node, aten.relu):
        return {**axes, node: axis}
    if is_call(node, aten.add) and [(other.meta["val"].shape, at) for other, at in others] == [(shape, axis)]:
        return {**axes, node: axis}
    if is_call(node, aten.mean) and len(node.args) > 1 and all(dim % len(shape) > axis for dim in node.args[1]):  # type: ignore[operator, union-attr]
        return {**axes, node: axis}
    if (sides := zeros_around(node)) and axis < len(shape) - len(sides) // 2:
        return {**axes, node: axis}
    if is_call(node, *SHAPE_OPS):
        numbers = torch.arange(shape[axis]).reshape(-1, *[1] * (len(shape) - axis - 1)).expand(shape)
        moved = node.target(*(numbers if argument is source else argument for argument in node.args), **node.kwargs)  # type: ignore[operator]
        for to, size in enumerate(moved.shape):
            if size == shape[axis] and bool((moved.movedim(to, -1) == torch.arange(size)).all()):
                return {**axes, node: to}
    return None


def _reaches(program: ExportedProgram, pictures: Sequence[Tensor], groups: Sequence[Channels]) -> list[Tensor]:
    """The largest absolute value of each channel in any tensor of its group, but for what a ReLU cuts off."""
    module = program.module(check_guards=False)
    found = {node.name: (number, axis) for number, group in enumerate(groups) for node, axis in group.axes.items()}
    reaches = [torch.zeros(())] * len(groups)

    class Measure(fx.Interpreter):
        def run_node(self, node: fx.Node) -> Any:
            value = super().run_node(node)
            if node.name in found and not all(is_call(user, aten.relu) for user in node.users):
                number, axis = found[node.name]
                reaches[number] = torch.maximum(reaches[number], value.abs().movedim(axis, 0).flatten(1).amax(1))
            return value

    for picture in pictures:
        Measure(module).run(picture)
    return reaches
