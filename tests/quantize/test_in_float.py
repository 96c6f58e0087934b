"""Nothing is in float without a word, from a model that has one of each reason."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lavit_edge.contract import InputContract
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize import in_float as reasons
from lavit_edge.quantize.in_float import InFloat, in_float
from lavit_edge.quantize.program import export_program

DEFAULT = {"stem", "offset", "head"}


class OneOfEach(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.one, self.two, self.offset = (nn.Conv2d(8, 8, 1) for _ in range(3))
        self.clamp = nn.ReLU6()
        self.tokens = nn.Conv1d(8, 8, 1)
        self.kernel = nn.Linear(8, 72)
        self.table = nn.Parameter(torch.zeros(8, 1, 1))
        self.head = nn.Linear(8, 3)

    def deploy(self) -> OneOfEach:
        return self

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.clamp(self.one(x)) * torch.sigmoid(self.two(x)) + self.table
        x = x + self.offset(x)
        x = F.conv2d(x, self.kernel(x.mean((0, 2, 3))).reshape(8, 1, 3, 3), padding=1, groups=8)
        return self.head(self.tokens(x.flatten(2)).mean(2))


def test_layers_and_operators_have_their_reasons() -> None:
    deployed = Deployed(OneOfEach(), InputContract(size=32, labels=("a", "b", "c"))).eval()
    found = in_float(export_program(deployed, 32), DEFAULT | {"one", "two"}, DEFAULT, {"two"})
    assert found[:5] == [
        InFloat("stem", 1, reasons.FIRST),
        InFloat("one", 1, reasons.ASKED),
        InFloat("two", 1, reasons.SEARCHED),
        InFloat("offset", 1, reasons.OWN),
        InFloat("head", 1, reasons.LAST),
    ]
    assert {each.what: (each.count, each.reason) for each in found[5:] if each.what != "add"} == {
        "mean": (2, reasons.NO_FORM),
        "sigmoid": (1, reasons.NO_FORM),
        "mul": (1, reasons.PRODUCT),
        "conv2d": (1, reasons.MADE_WEIGHT),
        "conv1d": (1, reasons.OTHER_LAYER),
    }, "neither the clamp, which rounding does, nor reshapes, nor what is before the first layer"
    assert {each.reason for each in found if each.what == "add"} == {reasons.ONE_SIDE, reasons.STORED}
