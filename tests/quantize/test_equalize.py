"""Channels in other units: the model computes the same, and one scale per tensor suits them better."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from lavit_edge.models.blocks import Add
from lavit_edge.quantize.equalize import channel_groups, equalize
from lavit_edge.quantize.evaluate import sqnr
from lavit_edge.quantize.program import export_program
from lavit_edge.quantize.scheme import default_float_layers, quantized_model


class Held(nn.Module):
    """Holds a model under the name that a deployed one has."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Residual(nn.Module):
    """Stem, depthwise convolution, a branch with a ReLU added to it, mean over the map, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mixer = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.expand, self.contract = nn.Conv2d(6, 12, 1), nn.Conv2d(12, 6, 1)
        self.add, self.head = Add(), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixer(self.stem(x))
        x = self.add(x, self.contract(self.expand(x).relu()))
        return self.head(x.mean((2, 3), keepdim=True).flatten(1))


def free(model: nn.Module, *size: int) -> list[tuple[set[str], set[str]]]:
    """Names of the parameters that make and of those that read the channels of each group whose units can be chosen."""
    program = torch.export.export(Held(model).eval(), (torch.zeros(*size),)) if size else export_program(Held(model).eval(), 4)
    groups = [group for group in channel_groups(program) if group.makers and group.readers and not group.bound]
    return [tuple({name.removeprefix("model.") for name in names} for names in (g.makers, g.readers)) for g in groups]  # type: ignore[misc]


def test_a_stretch_of_the_residual_stream_is_one_group() -> None:
    assert free(Residual()) == [
        ({"stem.weight", "stem.bias"}, {"mixer.weight"}),
        (
            {"mixer.weight", "mixer.bias", "contract.weight", "contract.bias"},
            {"expand.weight", "head.weight"},
        ),
        ({"expand.weight", "expand.bias"}, {"contract.weight"}),
    ]


class Tokens(nn.Module):
    """Convolution -> tokens -> linear -> map -> grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Conv2d(3, 8, 1), nn.Linear(8, 4), nn.Conv2d(4, 8, 1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x).flatten(2).transpose(1, 2)).permute(0, 2, 1).unflatten(2, (4, 4)))


def test_reshapes_take_channels_along() -> None:
    assert free(Tokens()) == [
        ({"first.weight", "first.bias"}, {"middle.weight"}),
        ({"middle.weight", "middle.bias"}, {"last.weight"}),
    ]


class Between(nn.Module):
    """An operator between two convolutions."""

    def __init__(self, operator: nn.Module) -> None:
        super().__init__()
        self.first, self.operator, self.second = nn.Conv2d(3, 4, 1), operator, nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.operator(self.first(x)))


class Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    "operator",
    [
        nn.GELU(),
        nn.ReLU6(),
        nn.Softmax(1),
        nn.LayerNorm(4),
        Function(lambda x: x + 1.0),
        Function(lambda x: x + x.mean((2, 3), keepdim=True)),
        Function(lambda x: x.transpose(1, 2)),
        Function(lambda x: x.reshape(1, 4, 2, 8).transpose(1, 2).reshape(1, 4, 4, 4)),
        Function(lambda x: x + x.transpose(1, 2)),
    ],
)
def test_units_are_bound_where_an_operator_depends_on_them(operator: nn.Module) -> None:
    assert free(Between(operator)) == []


def test_units_are_bound_where_a_weight_is_used_twice() -> None:
    model = Between(nn.ReLU())
    assert len(free(model)) == 1
    model.second = model.operator = nn.Conv2d(4, 4, 1)
    assert free(model) == []


def reaches(model: nn.Module, path: str, pictures: list[Tensor]) -> Tensor:
    """Of each channel of a layer's output."""
    found: list[Tensor] = []
    hook = model.get_submodule(path).register_forward_hook(lambda _, inputs, output: found.append(output.abs().amax((0, 2, 3))))
    for picture in pictures:
        model(picture)
    hook.remove()
    return torch.stack(found).amax(0)


@torch.no_grad()
@pytest.mark.parametrize("kind", [Residual, Tokens])
def test_what_is_computed_stays_and_reaches_come_nearer(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = Held(kind()).eval()
    maker = model.get_submodule("model.contract" if kind is Residual else "model.first")
    maker.weight[0] *= 100
    pictures = list(torch.rand(8, 3, 4, 4).split(1))
    equal = equalize(model, pictures)  # type: ignore[arg-type]
    for picture in pictures:
        assert sqnr(model(picture).flatten(1), equal(picture).flatten(1)) > 110
    path = "model.add" if kind is Residual else "model.first"
    before, after = reaches(model, path, pictures), reaches(equal, path, pictures)
    assert before.max() / before.median() > 20
    torch.testing.assert_close(
        after / after.max(), (before / before.max()).sqrt(), rtol=0.35 if kind is Residual else 1e-4, atol=0
    )
    assert not torch.equal(maker.weight, equal.get_submodule("model.contract" if kind is Residual else "model.first").weight)


def test_a_channel_that_is_zero_keeps_its_unit() -> None:
    model = Held(Between(nn.ReLU())).eval()
    with torch.no_grad():
        model.model.first.weight[1], model.model.first.bias[1] = 0, -1
    equal = equalize(model, [torch.rand(1, 3, 4, 4)])  # type: ignore[arg-type]
    assert all(bool(value.isfinite().all()) for value in equal.parameters())
    torch.testing.assert_close(equal.model.second.weight[:, 1], model.model.second.weight[:, 1])


@torch.no_grad()
def test_int8_of_channels_in_ill_chosen_units_is_mended(deployed, calibration, pictures) -> None:
    """Channels of the tiny model's streams counted in units up to eight times apart: int8 loses 4 dB, and has them back."""
    nncf = pytest.importorskip("nncf")
    assert nncf
    from lavit_edge.quantize.calibrate import calibrate, int8_form

    spoiled = copy.deepcopy(deployed)
    parameters, generator = dict(spoiled.named_parameters()), torch.Generator().manual_seed(0)
    for group in channel_groups(export_program(deployed, 64)):
        if group.makers and group.readers and not group.bound:
            unit = 2 ** (3 * torch.rand(len(parameters[group.makers[0]]), generator=generator))
            for name in group.makers:
                parameters[name].mul_(unit.reshape(-1, *[1] * (parameters[name].dim() - 1)))
            for name, channels in group.readers.items():
                parameters[name].div_(unit[channels].reshape(*channels.shape, *[1] * (parameters[name].dim() - 2)))

    def noise(model) -> float:
        float_layers = default_float_layers(model.model)
        fake = copy.deepcopy(model)
        fake.model = quantized_model(fake.model, int8_form(calibrate(model, calibration, float_layers)), float_layers, "fake")
        return sqnr(deployed(pictures), fake(pictures))

    assert sqnr(deployed(pictures), spoiled(pictures)) > 100
    figures = noise(spoiled), noise(equalize(spoiled, calibration))
    assert figures[1] > figures[0] + 2, figures
