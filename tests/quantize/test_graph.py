"""Which layer made what another reads, from programs small enough to read."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lavit_edge.models.blocks import Add
from lavit_edge.quantize.cost import CONVERSION, Cost
from lavit_edge.quantize.graph import LayerGraph
from lavit_edge.quantize.program import export_program


class Deployed(nn.Module):
    """Holds a model under the name that a deployed one has."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def graph(model: nn.Module) -> LayerGraph:
    return LayerGraph(export_program(Deployed(model).eval(), 4))


class Reshaped(nn.Module):
    """Convolution -> tokens -> linear -> map -> convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Conv2d(3, 8, 1), nn.Linear(8, 8), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.first(x).flatten(2).transpose(1, 2)
        return self.last(self.middle(tokens).permute(0, 2, 1).reshape(1, 8, 4, 4))


def test_reshapes_and_transposes_hand_on_what_a_layer_made() -> None:
    found = graph(Reshaped())
    assert found.inputs["middle"] == "first"
    assert found.inputs["last"] == "middle"
    assert found.inputs["first"] not in ("first", "middle", "last", None), "the picture, by the name of its node"
    assert found.clamps == {}


class Rectified(nn.Module):
    """Convolution, ReLU, convolution; with ``twice`` the values before the ReLU are read as well."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.twice = twice
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.second(x.relu())
        return y + x if self.twice else y


def test_a_relu_that_alone_follows_a_layer_is_part_of_it() -> None:
    found = graph(Rectified(twice=False))
    assert found.clamps == {"first": (0.0, math.inf)}
    assert found.inputs["second"] == "first"


def test_a_relu_beside_another_user_is_an_operator_of_its_own() -> None:
    found = graph(Rectified(twice=True))
    assert found.clamps == {}
    assert found.inputs["second"].startswith("relu")


class Gelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(nn.functional.gelu(self.first(x)))


def test_what_computes_in_float_is_a_source_of_its_own() -> None:
    assert graph(Gelu()).inputs["second"].startswith("gelu")


class Residual(nn.Module):
    """Two branches: one ``Add``, and one plain addition, which is always float."""

    def __init__(self, plain: bool) -> None:
        super().__init__()
        self.plain = plain
        self.first, self.branch, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.branch(x)
        return self.last(x + y if self.plain else self.add(x, y))


def test_an_addition_module_is_a_layer_and_a_plain_addition_is_none() -> None:
    assert graph(Residual(plain=False)).inputs["last"] == "add"
    assert graph(Residual(plain=True)).inputs["last"].startswith("add")
    tensors = {producer: users for producer, users in graph(Residual(plain=False)).tensors() if producer}
    assert tensors == {"first": {"branch", "add"}, "branch": {"add"}, "add": {"last"}, "last": set()} or tensors == {
        "first": {"branch", "add"},
        "branch": {"add"},
        "add": {"last"},
        "last": {None},
    }
    assert "add" not in {producer for producer, _ in graph(Residual(plain=True)).tensors()}


def test_an_addition_with_a_side_in_float_adds_in_float() -> None:
    cost = Cost(export_program(Deployed(Residual(plain=False)).eval(), 4), ())
    whole = cost.conversions(())
    assert cost.conversions(["branch"]) == whole + 2  # first's output is read in float, the sum is quantised
    assert cost(["branch"]) == 1 + 2 * CONVERSION
    assert cost.conversions(["branch", "add"]) == cost.conversions(["branch"])


def test_layers_of_one_name_in_two_places_are_two() -> None:
    found = graph(nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())))
    assert found.inputs["1.0"] == "0.0"
    assert set(found.clamps) == {"0.0", "1.0"}


def test_a_weight_that_is_read_by_no_layer_is_none() -> None:
    class Free(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    assert graph(Free()).inputs == {}
