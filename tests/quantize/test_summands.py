"""Summands whose steps are too far apart: the finer one grows, where a layer makes it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("nncf")

from lavit_edge.quantize.calibrate import Observe, _asymmetric
from lavit_edge.quantize.scheme import QuantizedAdd, QuantizedLayer
from lavit_edge.quantize.summands import MOST, level_summands


def on_grid(step: float) -> nn.Module:
    observed = Observe()
    observed(torch.tensor([-128, 127]) * step)
    return _asymmetric(observed)


def layer(step: float) -> QuantizedLayer:
    whole = nn.Conv2d(3, 3, 1, bias=False)
    return QuantizedLayer(whole, torch.full((3, 3, 1, 1), step), None, nn.Identity(), nn.Identity(), on_grid(step))


class Branches(nn.Module):
    """A coarse layer, a fine one added to it, and that sum to something as fine again."""

    def __init__(self, coarse: float, fine: float) -> None:
        super().__init__()
        self.coarse, self.fine, self.add = layer(coarse), layer(fine), QuantizedAdd(on_grid(coarse))
        self.last, self.sum = layer(coarse * 2 * MOST), QuantizedAdd(on_grid(coarse * 2 * MOST))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x).flatten(2).transpose(1, 2)  # through tokens and back
        return self.sum(self.last(x), self.add(self.coarse(x), fine.transpose(1, 2).unflatten(2, x.shape[2:])))


def step(model: nn.Module) -> float:
    return float(model.quantize_output.get_parameters_for_torch_fq()[2])  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("apart", [2.0, MOST * 0.99, MOST * 20])
def test_the_finer_step_is_at_least_a_64th_of_the_coarser(apart: float) -> None:
    model = Branches(1.0, 1 / apart).eval()
    picture = torch.randint(0, 9, (1, 3, 8, 8)).float()
    before = model(picture)
    assert level_summands(model, picture) == (["fine"] if apart > MOST else [])
    assert step(model.fine) == pytest.approx(max(1 / apart, 1 / MOST))
    assert [step(each) for each in (model.coarse, model.add, model.sum)] == pytest.approx([1, 1, 2 * MOST]), (
        "a sum stays as it is"
    )
    assert (model(picture) - before).abs().max() <= 2 * MOST
    assert level_summands(model, picture) == [], "and now it is level"
