"""A ReLU6 between quantisers whose ranges go beyond 6: the clip must be computed, by every runtime.

ONNX Runtime's cleanup of Q/DQ pairs (``session.enable_quant_qdq_cleanup``) once dropped it: 8.9 dB instead of 137.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from lavit_edge.artifact.runners import open_artifact
from lavit_edge.contract import InputContract
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import ALL, TARGETS
from lavit_edge.metrics import sqnr
from lavit_edge.quantize.scheme import Dequantize, QuantizeDequantize

pytestmark = pytest.mark.slow
CONTRACT = InputContract(size=32, labels=tuple(f"class {index}" for index in range(10)))
EXTRAS = {"executorch": ("executorch",), "onnx": ("onnx", "onnxscript", "onnxruntime"), "coreml": ("coremltools",)}
EXTRAS |= {"coreai": ("coreai_torch",)}


class Clipped(nn.Module):
    """int8 convolution, its codes up to 25; ReLU6; codes again; int8 convolution, its codes up to 40; mean."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name, inputs, outputs, largest in (("first", 3, 8, 2.0), ("second", 8, 10, 0.3)):
            self.register_buffer(name, torch.randint(-127, 128, (outputs, inputs, 3, 3), dtype=torch.int8))
            self.add_module(f"{name}_scale", Dequantize(torch.full((outputs,), largest / 127)))
        self.clip: nn.Module = nn.ReLU6()
        self.pixels, self.sums = QuantizeDequantize(8 / 255, 0), QuantizeDequantize(50 / 255, 0)
        self.clipped, self.logits = QuantizeDequantize(25 / 255, -128), QuantizeDequantize(80 / 255, 0)

    def forward(self, picture: Tensor) -> Tensor:
        x = self.pixels((picture - 127.5) / 32)
        x = self.sums(nn.functional.conv2d(x, self.first_scale(self.first), stride=2))
        x = self.clipped(self.clip(x))
        return self.logits(nn.functional.conv2d(x, self.second_scale(self.second), stride=2)).mean((2, 3))


@pytest.fixture(scope="module")
def program() -> ExportedProgram:
    return torch.export.export(Clipped().eval(), (torch.zeros(1, 3, 32, 32),))


@pytest.mark.parametrize("name", ALL)
def test_the_clip_is_computed(name: str, program: ExportedProgram, tmp_path: Path) -> None:
    for module in EXTRAS[name]:
        pytest.importorskip(module)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(4)]
    run = program.module()
    with torch.no_grad():
        expected = np.stack([run(torch.from_numpy(p).permute(2, 0, 1)[None].float().contiguous())[0].numpy() for p in pictures])
    TARGETS[name].export(program, make_payload(program, CONTRACT, {}, 50.0), tmp_path / f"model{TARGETS[name].suffix}")
    for artifact in sorted(tmp_path.iterdir()):
        given = np.stack([open_artifact(artifact, threads=1)(picture) for picture in pictures])
        assert sqnr(expected, given) > 40, artifact.name


def test_without_the_clip_it_would_show() -> None:
    picture = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32))).float()
    sound, broken = Clipped().eval(), Clipped().eval()
    broken.clip = nn.ReLU()
    with torch.no_grad():
        assert sqnr(sound(picture).numpy(), broken(picture).numpy()) < 20
