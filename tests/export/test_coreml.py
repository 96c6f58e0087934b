"""What Core ML calls a class, on a net whose logits are the mean red, green and blue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("coremltools")
from lavit_edge.artifact.mlprogram import MLProgram
from lavit_edge.artifact.payload import Golden, Payload
from lavit_edge.contract import InputContract
from lavit_edge.export.targets import find_target

LABELS = ("zebra", "Moth", "ant")  # in the order of no alphabet, which folders of pictures have


class MeanColour(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) / 64


def test_classes_are_named_in_the_order_of_the_contract(tmp_path: Path) -> None:
    program = torch.export.export(MeanColour(), (torch.zeros(1, 3, 16, 16),))
    plain = np.zeros((16, 16, 3), np.uint8)
    golden = tuple(Golden(str(index), plain, plain, np.arange(3, dtype=np.float32), 8.0) for index in range(4))
    find_target("coreml").export(program, Payload(InputContract(16, LABELS), {}, golden, 1.0), tmp_path / "model.mlpackage")
    model = MLProgram(tmp_path / "model.mlpackage")
    for index, label in enumerate(LABELS):
        picture = plain.copy()
        picture[..., index] = 128
        result = model.predict({"image": picture})
        assert result["classLabel"] == label
        share = np.e**2 / (np.e**2 + 2)
        wanted = {name: share if name == label else (1 - share) / 2 for name in LABELS}
        assert result["classLabel_probs"] == pytest.approx(wanted, abs=1e-3)
