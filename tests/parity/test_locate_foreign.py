"""Locating in nets that were not made here: values that are overwritten, operators that toolchains write otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.export import ExportedProgram

pytest.importorskip("nncf")
pytest.importorskip("executorch")
pytest.importorskip("onnx")
pytest.importorskip("coremltools")
from lavit_edge.adapt.run import adapt
from lavit_edge.contract import InputContract
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import TARGETS
from lavit_edge.parity.agreement import Gates
from lavit_edge.parity.locate import locate
from lavit_edge.parity.locate_points import Reference
from lavit_edge.quantize.config import QuantizeConfig
from lavit_edge.quantize.program import export_program, float_program, int8_program
from lavit_edge.quantize.run import quantize
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


class Encoded(nn.Module):
    """torch's own encoder, whose queries coremltools scales before it turns them to the front, not after."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 9, 9)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1, enable_nested_tensor=False
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.stem(x / 255 - 0.5).flatten(2).transpose(1, 2)).mean(1))


class Mixed(nn.Module):
    """Codes of tokens become a map before they are added to one: coremltools counts the sum in units of the tokens' codes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.next = nn.Conv2d(3, 8, 9, 9), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.mix, self.head = nn.Linear(16, 16), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.stem(x)).relu()
        x = x + self.mix(x.flatten(2)).unflatten(2, (4, 4))
        return self.head(self.next(x).mean((2, 3)))


class Shuffled(nn.Module):
    """Halves of channels are joined and shuffled: ONNX Runtime moves what quantises them to in front of the shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.part = nn.Conv2d(3, 8, 9, 9), nn.Conv2d(8, 8, 1), nn.Conv2d(4, 4, 1)
        self.next, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.conv(self.stem(x)).relu().chunk(2, 1)
        x = torch.cat([left, self.part(right)], 1).unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)
        return self.head(self.next(x).mean((2, 3)))


class Deployed(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


CONTRACT = InputContract(SIZE, tuple("abcd"))


def quantized(model: nn.Module, folder: Path) -> ExportedProgram:
    quick = QuantizeConfig(epochs=0, calibration_pictures=8, limit_val=8)
    return int8_program(quantize(adapt(model.eval(), CONTRACT), None, folder / "int8", quick))


@pytest.fixture(scope="module", params=["gated", "encoded", "mixed", "shuffled"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportedProgram, set[str]]:
    """A program, and operators whose results every runtime shows."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("made")
    if request.param == "gated":
        return export_program(Deployed(Gated()).eval(), SIZE), {"mean", "sigmoid", "linear"}
    if request.param == "encoded":
        return float_program(adapt(Encoded().eval(), CONTRACT)), {"mul", "bmm", "layer_norm", "linear"}
    if request.param == "mixed":
        return quantized(Mixed(), folder), {"add", "linear"}
    return quantized(Shuffled(), folder), {"conv2d"}


@pytest.mark.parametrize("kind", ["executorch", "onnx", "coreml"])
def test_no_layer_of_a_sound_artifact_is_named(made: tuple[ExportedProgram, set[str]], kind: str, tmp_path: Path) -> None:
    program, looked_at = made
    path = tmp_path / f"model{TARGETS[kind].suffix}"
    payload = make_payload(program, CONTRACT, {}, 8.0)
    TARGETS[kind].export(program, payload, path)
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    (result,) = locate(program, [path], [picture], Gates(), Console(quiet=True))
    assert result.first is None
    assert result.notes == []
    assert looked_at <= {layer.op for layer in result.layers}
    assert len(result.layers) >= 0.6 * len(Reference(program).points)
    assert verdicts(path)
