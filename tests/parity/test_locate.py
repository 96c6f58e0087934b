"""The first layer in which an artifact parts from its program: planted defects are named, sound artifacts name none."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.export import ExportedProgram

for toolchain in ("executorch", "onnx", "coremltools"):
    pytest.importorskip(toolchain)
from lavit_edge.checkpoint import Checkpoint, load_checkpoint
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.export.targets import TARGETS
from lavit_edge.models import lavit
from lavit_edge.parity.compare import PROGRAM, Gates
from lavit_edge.parity.locate import Located, locate
from lavit_edge.parity.locate_points import Reference
from lavit_edge.parity.locate_render import sentence
from lavit_edge.quantize import float_program, int8_program

pytestmark = pytest.mark.slow
KINDS = ("executorch", "onnx", "coreml")


@pytest.fixture(scope="module")
def checkpoint(int8: Path) -> Checkpoint:
    return load_checkpoint(int8)


@pytest.fixture(scope="module")
def program(checkpoint: Checkpoint) -> ExportedProgram:
    return int8_program(checkpoint)


@pytest.fixture(scope="module")
def pictures(checkpoint: Checkpoint, data: Path) -> list[np.ndarray]:
    return [picture for picture, _ in PictureFolder(data, "val").spread(3).inputs(checkpoint.contract, True)]


def export(program: ExportedProgram, checkpoint: Checkpoint, kind: str, folder: Path) -> Path:
    path = folder / f"model{TARGETS[kind].suffix}"
    TARGETS[kind].export(program, checkpoint.contract, path)
    return path


def run(program: ExportedProgram, artifacts: list[Path], pictures: list[np.ndarray]) -> list[Located]:
    return locate(program, artifacts, pictures, Gates(), Console(quiet=True))


@pytest.fixture(scope="module")
def sound(program: ExportedProgram, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sound")
    return {kind: export(program, checkpoint, kind, folder) for kind in KINDS}


def test_sound_artifacts_name_no_layer(program: ExportedProgram, sound: dict[str, Path], pictures: list[np.ndarray]) -> None:
    points = Reference(program).points
    for result in run(program, list(sound.values()), pictures):
        print(
            result.artifact,
            max(l.steps for l in result.layers if l.scale),
            max(l.rms_steps for l in result.layers if l.scale),
            min(l.sqnr_db for l in result.layers if not l.scale),
        )
        assert result.first is None
        assert "none of" in sentence(result, PROGRAM)
        # every int8 value was seen, and nearly every float one (some are fused away), without moving a bit of the logits
        assert {layer.layer for layer in result.layers if layer.scale} == {
            point.layer for point in points.values() if point.scale
        }
        assert len(result.layers) >= 0.95 * len(points)
        assert result.notes == []


def four_dimensional(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores ``(B, H, N, M)`` from the convolution through the addition to the softmax."""

    def downsample(self: lavit.AttentionDownsample, scores: Tensor) -> Tensor:
        assert not self.shrink_keys
        return self.mix(lavit.to_tokens(self.queries(lavit.to_map(scores, self.grid)))[None])

    def vanilla(self: lavit.VanillaAttention, x: Tensor, carried: Tensor | None) -> tuple[Tensor, Tensor]:
        keys = self.key_tokens(x)
        scores = torch.bmm(self.split(self.query(x)), self.split(self.key(keys)).transpose(1, 2))
        shape = scores.shape
        if carried is not None:
            scores = scores.reshape(carried.shape) + carried
        attention = scores.softmax(-1).reshape(shape)
        return self.project(self.merge(torch.bmm(attention, self.split(self.value(keys))))), scores.reshape(shape)

    monkeypatch.setattr(lavit.AttentionDownsample, "forward", downsample)
    monkeypatch.setattr(lavit.VanillaAttention, "forward", vanilla)


def test_executorchs_softmax_over_channels_is_named(
    checkpoint: Checkpoint, pictures: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, int8: Path
) -> None:
    four_dimensional(monkeypatch)
    program = int8_program(load_checkpoint(int8))
    paths = [export(program, checkpoint, kind, tmp_path) for kind in ("executorch", "onnx")]
    pte, onnx = run(program, paths, pictures)
    print(sentence(pte, PROGRAM))
    assert pte.first is not None
    assert (pte.first.block, pte.first.layer, pte.first.op) == ("stages.1.blocks.0", "stages.1.blocks.0.attention", "softmax")
    assert "in block stages.1.blocks.0, at softmax of stages.1.blocks.0.attention" in sentence(pte, PROGRAM)
    assert onnx.first is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["stages.0.blocks.0.attention.query", "stages.2.blocks.1.ffn.expand"])
def test_a_wrong_weight_scale_is_named(
    kind: str, path: str, program: ExportedProgram, checkpoint: Checkpoint, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    wrong = copy.deepcopy(program)
    wrong.state_dict[f"model.{path}.quantize_weight.scale"].mul_(1.5)
    t = time.time()
    artifact = export(wrong, checkpoint, kind, tmp_path)
    t2 = time.time()
    (result,) = run(program, [artifact], pictures)
    print(kind, t2 - t, time.time() - t2, sentence(result, PROGRAM))
    assert result.first is not None
    assert result.first.layer == path
    assert path.startswith(result.first.block + ".")
    assert [layer.layer for layer in result.layers if layer.bad] == [path]


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_activation_scale_is_named_with_both_scales(
    kind: str, program: ExportedProgram, checkpoint: Checkpoint, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    path = "stages.1.blocks.0.attention.project"
    wrong = copy.deepcopy(program)
    name = next(name for name, point in Reference(program).points.items() if (point.layer, point.op) == (path, "linear"))
    quantize = next(node for node in wrong.graph.nodes if node.name == name)
    for node in (quantize, *quantize.users):
        node.args = (node.args[0], node.args[1] * 1.25, *node.args[2:])
    (result,) = run(program, [export(wrong, checkpoint, kind, tmp_path)], pictures)
    print(sentence(result, PROGRAM))
    assert result.first is not None
    assert (result.first.block, result.first.layer, result.first.op) == ("stages.1.blocks.0", path, "linear")
    assert result.first.stored_scale == pytest.approx(1.25 * result.first.scale, rel=1e-3)
    assert "in the program" in sentence(result, PROGRAM)
