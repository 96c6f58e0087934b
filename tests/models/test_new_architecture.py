"""A new architecture is its own code and nothing else: the whole path takes up what is registered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from lavit_edge.export.__main__ import main as export
from lavit_edge.models import list_models, registry
from lavit_edge.models.blocks import Block, ConvPatchEmbedding, FeedForward, Stage, to_map, to_tokens
from lavit_edge.models.classifier import Classifier, drop_rates
from lavit_edge.quantize.__main__ import main as quantize
from lavit_edge.train.__main__ import main as train


class Mixing(nn.Module):
    """A depthwise convolution where others attend."""

    def __init__(self, dim: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.mix = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return to_tokens(self.mix(to_map(x, self.grid)))


class Mixer(Classifier):
    def __init__(self, *, dim: int, depth: int, num_classes: int, image_size: int, drop_path: float = 0.0) -> None:
        grid = image_size // 4
        blocks = [Block(Mixing(dim, grid), FeedForward(dim, 2 * dim, grid), dim, r) for r in drop_rates((depth,), drop_path)[0]]
        super().__init__([Stage(ConvPatchEmbedding(3, dim, 4), blocks, dim, grid, position=False)], dim, num_classes)


@pytest.fixture
def mixer(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(registry, "_BUILDERS", dict(registry._BUILDERS))

    @registry.register
    def mixer_pico(**options: Any) -> Mixer:
        return Mixer(**{"dim": 16, "depth": 2, **options})

    return "mixer_pico"


@pytest.mark.slow
def test_what_is_registered_is_trained_quantised_and_exported(mixer: str, data: Path, gates: list[str], tmp_path: Path) -> None:
    assert mixer in list_models()
    run, int8, bundle = (tmp_path / name for name in ("run", "int8", "bundle"))
    settings = ["--workers", "0", "--device", "cpu", "--set", "image_size=64", "epochs=2", "batch_size=8", "warmup_epochs=0"]
    assert train(["--model", mixer, "--data", str(data), "--out", str(run), *settings]) == 0
    common = ["--checkpoint", str(run / "checkpoint"), "--data", str(data), "--out", str(int8), "--calibration-pictures", "8"]
    assert quantize([*common, "--max-steps", "1", "--batch-size", "8"]) == 0
    assert export(["--target", "onnx", "--checkpoint", str(int8), "--data", str(data), "--out", str(bundle), *gates]) == 0
    assert json.loads((bundle / "parity.json").read_text())["selftest"] == {"model.onnx": True, "model.ort": True}
    assert json.loads((bundle / "manifest.json").read_text())["model"]["name"] == mixer
