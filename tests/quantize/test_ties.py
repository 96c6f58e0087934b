"""Sums and products of codes that lie on ties get another step, and those of later layers are measured behind it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("nncf")

from lavit_edge.quantize.calibrate import Observe, _asymmetric
from lavit_edge.quantize.scheme import QuantizedAdd, QuantizedLayer
from lavit_edge.quantize.ties import MANY, NEAR, _rounded, _rounding, avoid_ties, share_near_ties

STEP = 1 / 64


def quantizer(step: float = STEP) -> nn.Module:
    observed = Observe()
    observed(torch.tensor([-128, 127]) * step)
    return _asymmetric(observed)


def addition(bounded: bool = False) -> QuantizedAdd:
    """An addition with steps of 1/64."""
    return QuantizedAdd(quantizer(), bounded)


class Two(nn.Module):
    """``x`` lies on a grid; half of that is added to it, and then the whole of it."""

    def __init__(self, bounded: bool = False) -> None:
        super().__init__()
        self.first, self.second = addition(bounded), addition()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x, x / 2), x)


def steps(model: Two) -> list[float]:
    return [float(add.quantize_output.get_parameters_for_torch_fq()[2]) for add in (model.first, model.second)]


def shares(model: Two, pictures: list[Tensor]) -> list[float]:
    sums = _rounded(model, {"first": model.first.quantize_output, "second": model.second.quantize_output}, pictures)
    return [share_near_ties(sums[path], step) for path, step in zip(("first", "second"), steps(model), strict=True)]


class Product(nn.Module):
    """``x`` lies on a grid; its square goes through two layers of one input, the second's output through a third, noise through a
    fourth."""

    def __init__(self) -> None:
        super().__init__()
        given, made = quantizer(1 / 32), quantizer(1 / 16)
        layer = nn.Conv2d(3, 3, 1, bias=False)

        def quantized(quantize_input: nn.Module, quantize_output: nn.Module) -> QuantizedLayer:
            return QuantizedLayer(layer, torch.eye(3)[:, :, None, None], None, quantize_input, nn.Identity(), quantize_output)

        self.first, self.second = quantized(given, quantizer()), quantized(given, made)
        self.third, self.fourth = quantized(made, quantizer()), quantized(quantizer(), quantizer())

    def forward(self, x: Tensor) -> Tensor:
        square = x * x
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        return self.first(square) + self.third(self.second(square)) + self.fourth(noise)


@pytest.fixture
def pictures() -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randint(-60, 60, (1, 3, 64, 64), generator=random) * STEP for _ in range(2)]


def test_a_step_grows_until_ties_are_as_rare_as_by_chance(pictures: list[Tensor]) -> None:
    model = Two().eval()
    before, (on_ties, none) = steps(model), shares(model, pictures)
    assert before == pytest.approx([STEP, STEP])
    assert on_ties == pytest.approx(0.5, abs=0.1), "every other whole number has a half that is none"
    assert none == 0
    grown = avoid_ties(model, pictures)
    assert grown[0] == "first"
    assert max(shares(model, pictures)) <= MANY * 2 * NEAR
    assert before[0] < steps(model)[0] <= 1.017 * before[0]
    assert avoid_ties(model, pictures) == []


def test_an_end_that_stands_for_a_relu6_stays(pictures: list[Tensor]) -> None:
    model = Two(bounded=True).eval()
    assert "first" not in avoid_ties(model, pictures)
    assert steps(model)[0] == pytest.approx(STEP)


def test_the_share_is_twice_the_distance_by_chance() -> None:
    codes = torch.rand(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 200 - 100
    assert share_near_ties([codes], 1.0) == pytest.approx(2 * NEAR, rel=0.6)
    assert share_near_ties([torch.tensor([0.5, 1.0, -1.5, 2.25], dtype=torch.float64)], 1.0) == 0.5


def test_an_input_that_is_a_product_of_codes_gets_another_step(pictures: list[Tensor]) -> None:
    model = Product().eval()
    waiting = _rounding(model)
    assert set(waiting) == {"first", "fourth"}, "the second has the input of the first, and what the third gets is rounded"
    values = _rounded(model, waiting, pictures)
    assert [len(each) for each in values["fourth"]] == [0, 0], "noise is not made of codes"
    assert share_near_ties(values["first"], 1 / 32) > 100 * NEAR
    assert avoid_ties(model, pictures) == ["first"]
    assert model.second.quantize_input is model.first.quantize_input
    step = float(model.first.quantize_input.get_parameters_for_torch_fq()[2])
    assert 1 / 32 < step <= 1.017 / 32
    assert share_near_ties(values["first"], step) <= MANY * 2 * NEAR
