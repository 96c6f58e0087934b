"""What a float layer costs: its own time, and the conversions between int8 and float that it adds around it."""

from __future__ import annotations

from collections.abc import Collection

from torch.export import ExportedProgram

from lavit_edge.quantize.graph import LayerGraph

# The price of a conversion, in layers. benchmarks/float_layers.py measured 0.11 to 0.30 in ExecuTorch and 0.55 to 0.68 in ONNX
# Runtime on x86-64. Under 0.5 no layer becomes float for nothing: it takes two conversions away at most, before and behind it.
CONVERSION = 0.25


class Cost:
    """The cost of a set of float layers, in layers: their number, and a share of a layer for each tensor more that is converted.

    A tensor is converted where an int8 layer leaves it to something in float (one dequantise), or the other way round (one
    quantise). A layer kept in float between two int8 layers adds two such graph breaks, its neighbour as well none, a whole chain
    of layers between float operators takes two away: so adjacent layers are cheaper than scattered ones.

    Args:
        program: the fp32 program of ``Deployed``.
        float_layers: module paths of the layers that are in float anyhow, at no cost.
    """

    def __init__(self, program: ExportedProgram, float_layers: Collection[str]) -> None:
        self.float_layers = frozenset(float_layers)
        graph = LayerGraph(program)
        self.tensors = list(graph.tensors())
        self.additions = {layer for layers in self.tensors for layer in layers[1]} - {None, *graph.inputs}
        self.fewest = self.conversions(())

    def conversions(self, extra: Collection[str]) -> int:
        """How many tensors are converted when the layers ``extra`` are in float, too."""

        def quantised(layer: str | None) -> bool:
            return layer is not None and layer not in self.float_layers and layer not in extra

        def int8(layer: str | None) -> bool:
            return quantised(layer) and layer not in mixed

        # an addition one of whose sides is float adds in float, and its sum is quantised
        mixed = self.additions & {user for producer, users in self.tensors if not quantised(producer) for user in users}
        return sum(any(int8(user) != int8(producer) for user in users) for producer, users in self.tensors)

    def __call__(self, extra: Collection[str]) -> float:
        return len(extra) + CONVERSION * (self.conversions(extra) - self.fewest)
