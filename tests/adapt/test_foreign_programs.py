"""Programs of nets that were not made here: what is stored in them, and codes that every runtime takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

import lavit_edge
from lavit_edge import QuantizeConfig
from lavit_edge.artifact.runners import open_artifact
from lavit_edge.contract import InputContract
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import TARGETS
from lavit_edge.metrics import sqnr
from lavit_edge.parity.agreement import Gates
from lavit_edge.parity.locate import locate
from lavit_edge.quantize.program import fake_quantized, float_program, int8_program

pytestmark = pytest.mark.slow
pytest.importorskip("executorch")
pytest.importorskip("onnx")
pytest.importorskip("coremltools")
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


class Branches(nn.Module):
    """Two int8 layers of different ranges, something between them and the next."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor], channels: int) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.join, self.body, self.head = join, nn.Conv2d(channels, 8, 1), nn.Linear(8, 4)
        self.two.weight.data *= 1.7

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head(self.body(self.join(self.one(x), self.two(x))).relu().mean((2, 3)))


def chosen(one: Tensor, two: Tensor) -> Tensor:
    either = torch.where((one > 0) & (two < 1), functional.mish(one), functional.rms_norm(two, (16,)))
    alike = functional.cosine_similarity(one, two, 1)[:, None]
    return either * (1 + alike) + one * (two.mean((2, 3), keepdim=True) > 0)


@pytest.mark.parametrize(
    ("join", "channels"),
    [
        (lambda one, two: torch.cat([one, two], 1), 16),  # XNNPACK refused the file: 8 bits of three grids
        (lambda one, two: torch.cat([one, one.relu(), two], 1), 24),
        (lambda one, two: functional.max_pool2d(one, 2), 8),  # and coremltools wants a stride
        (lambda one, two: torch.cat([functional.max_pool2d(one, 3, 2, 1), functional.avg_pool2d(two, 2)], 1), 16),
        (chosen, 8),  # the layer check took conditions for numbers; RMSNorm ran in neither ExecuTorch nor Core ML
    ],
    ids=["two joined", "three joined", "pooled", "pooled and joined", "chosen"],
)
def test_two_int8_layers_with_anything_behind_them_run_everywhere(join: Callable, channels: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = QuantizeConfig(epochs=0, calibration_pictures=8, limit_val=8)
    module = Branches(join, channels).eval()
    checkpoint = lavit_edge.quantize(lavit_edge.adapt(module, CONTRACT), None, tmp_path / "int8", config)
    program, picture = int8_program(checkpoint), np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    wanted = program.module()(pixels)[0].detach()
    torch.testing.assert_close(fake_quantized(checkpoint)(pixels)[0].detach(), wanted, atol=1e-6, rtol=0)
    for name in ("executorch", "onnx", "coreml"):
        path = tmp_path / f"model{TARGETS[name].suffix}"
        TARGETS[name].export(program, make_payload(program, CONTRACT, {}, 8.0), path)
        assert sqnr(wanted.numpy(), open_artifact(path, threads=1)(picture)) > (30 if name == "coreml" else 40)
        (result,) = locate(program, [path], [picture], Gates(), Console(quiet=True))
        assert result.first is None


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
