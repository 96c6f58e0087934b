"""A net that makes its position encoding anew for each batch: the programs have it as a stored table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import lavit_edge
from lavit_edge import QuantizeConfig
from lavit_edge.contract import InputContract
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import TARGETS
from lavit_edge.parity.agreement import Gates
from lavit_edge.parity.locate import locate
from lavit_edge.quantize.program import float_program, int8_program

pytestmark = pytest.mark.slow
pytest.importorskip("executorch")
CONTRACT = InputContract(32, tuple("abcd"))


class Positioned(nn.Module):
    """Sines and cosines of running sums over a mask that has the size of the batch, as EdgeNeXt and DETR make them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.positions = nn.Conv2d(3, 16, 4, 4), nn.Conv2d(16, 16, 1)
        self.body, self.head = nn.Conv2d(16, 16, 1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        seen = ~torch.zeros((x.shape[0], x.shape[2], x.shape[3]), dtype=torch.bool)
        rows, columns = (seen.cumsum(axis, dtype=torch.float32) for axis in (1, 2))
        rates = 10 ** (torch.arange(4, dtype=torch.float32) / 4)
        angles = torch.cat([rows[..., None] / rates, columns[..., None] / rates], -1)
        encoding = torch.cat([angles.sin(), angles.cos()], -1).permute(0, 3, 1, 2)
        return self.head(self.body(x + self.positions(encoding)).relu().mean((2, 3)))


def test_a_position_encoding_is_stored_and_every_layer_is_found(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Positioned().eval()
    config = QuantizeConfig(epochs=0, calibration_pictures=4, limit_val=4)
    checkpoint = lavit_edge.quantize(lavit_edge.adapt(module, CONTRACT), None, tmp_path / "int8", config)
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    mean, std = (torch.tensor(value).reshape(1, 3, 1, 1) for value in (CONTRACT.mean, CONTRACT.std))
    wanted = module((pixels / 255 - mean) / std)
    for name, program in {"float": float_program(checkpoint), "int8": int8_program(checkpoint)}.items():
        used = {str(node.target).split(".")[1] for node in program.graph.nodes if node.op == "call_function"}
        assert not used & {"zeros", "full", "arange", "cumsum", "sin", "cos", "cat", "_assert_tensor_metadata"}
        torch.testing.assert_close(program.module()(pixels), wanted, atol=1e-5 if name == "float" else 0.05, rtol=0)
        path = tmp_path / f"{name}.pte"
        TARGETS["executorch"].export(program, make_payload(program, CONTRACT, {}, 8.0), path)
        (result,) = locate(program, [path], [picture], Gates(), Console(quiet=True))
        assert result.first is None
        assert {"stem", "body", "head"} <= {layer.layer.rpartition(".")[2] for layer in result.layers}
