"""Locating in nets that were not made here: values that are overwritten, operators that toolchains write otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

pytest.importorskip("executorch")
pytest.importorskip("onnx")
pytest.importorskip("coremltools")
from lavit_edge.contract import InputContract
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import TARGETS
from lavit_edge.parity.agreement import Gates
from lavit_edge.parity.locate import locate
from lavit_edge.parity.locate_points import Reference
from lavit_edge.quantize.program import export_program
from lavit_edge.verdict.read import verdicts

SIZE = 37  # no multiple of anything


class Gated(nn.Module):
    """A pooling that becomes one more ``mean`` in front of others, and operators that overwrite their input or do nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(inplace=True)
        self.pool, self.gate = nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1)
        self.dropout, self.head = nn.Dropout(0.5), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x / 255 - 0.5))
        x = nn.functional.hardswish(x * self.gate(self.pool(x)).sigmoid())
        gate = self.act(self.gate(x.mean((2, 3), keepdim=True)))
        return self.head(self.dropout((x * gate).mean((2, 3)).flatten(1)))


class Deployed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Gated()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


@pytest.mark.parametrize("kind", ["executorch", "onnx", "coreml"])
def test_no_layer_of_a_sound_artifact_is_named(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = export_program(Deployed().eval(), SIZE)
    path = tmp_path / f"model{TARGETS[kind].suffix}"
    payload = make_payload(program, InputContract(SIZE, tuple("abcd")), {}, 8.0)
    TARGETS[kind].export(program, payload, path)
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    (result,) = locate(program, [path], [picture], Gates(), Console(quiet=True))
    assert result.first is None
    assert result.notes == []
    seen = {layer.op for layer in result.layers}
    assert {"mean", "sigmoid", "linear"} <= seen
    assert len(result.layers) >= 0.6 * len(Reference(program).points)
    assert verdicts(path)
