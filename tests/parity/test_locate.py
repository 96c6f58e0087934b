"""The first layer in which an artifact parts from its program: planted defects are named, sound artifacts name none."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx.passes.infra.pass_base import PassResult

pytest.importorskip("executorch")
pytest.importorskip("onnx")
pytest.importorskip("coremltools")
from lavit_edge.artifact.bundle import MANIFEST, artifact_sha256
from lavit_edge.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lavit_edge.data.folder import PictureFolder
from lavit_edge.doctor.smallest import int8_form
from lavit_edge.errors import UserError
from lavit_edge.export import executorch
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import TARGETS
from lavit_edge.models import create_model, lavit
from lavit_edge.models.deployed import Deployed
from lavit_edge.parity.agreement import PROGRAM, Gates
from lavit_edge.parity.locate import Located, locate
from lavit_edge.parity.locate_points import Reference
from lavit_edge.parity.locate_pte import read_graph, write_graph
from lavit_edge.parity.locate_render import sentence
from lavit_edge.quantize import float_program, int8_program
from lavit_edge.quantize.scheme import default_float_layers, quantizable
from lavit_edge.verify import main as verify

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
    TARGETS[kind].export(program, make_payload(program, checkpoint.contract, {}, 50.0), path)
    return path


def run(program: ExportedProgram, artifacts: list[Path], pictures: list[np.ndarray]) -> list[Located]:
    return locate(program, artifacts, pictures, Gates(), Console(quiet=True))


@pytest.fixture(scope="module")
def sound(bundle: Path) -> dict[str, Path]:
    return {kind: bundle / f"model{TARGETS[kind].suffix}" for kind in KINDS}


def test_sound_artifacts_name_no_layer(
    program: ExportedProgram, checkpoint: Checkpoint, sound: dict[str, Path], pictures: list[np.ndarray]
) -> None:
    points = Reference(program).points
    deployed = checkpoint.model.deploy()
    layers = quantizable(deployed, default_float_layers(deployed))
    for result in run(program, list(sound.values()), pictures):
        assert result.first is None
        assert "none of" in sentence(result, PROGRAM)
        # every int8 layer was seen, and nearly every other value (some are fused away), and no bit of the logits moved
        assert set(layers) <= {layer.layer for layer in result.layers if layer.scale and layer.op != "quantize"}
        assert len(result.layers) >= 0.95 * len(points)
        assert result.notes == []


@pytest.fixture(scope="module")
def paper(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the paper's LaViT, whose scores come from a convolution: two stages, random weights, quantised."""
    torch.manual_seed(0)
    options: dict[str, Any] = dict(dims=(16, 32), heads=(1, 1), depths=(1, 1), num_vanilla=(1, 1), mlp_ratios=(2, 2))
    options |= dict(sr_ratios=(4, 2), attention_residual=(False, True))
    contract = checkpoint.contract
    model = create_model("lavit_tiny", num_classes=len(contract.labels), image_size=contract.size, **options).eval()
    path = tmp_path_factory.mktemp("paper") / "checkpoint"
    with torch.no_grad():
        int8 = int8_form(Deployed(model, contract).eval(), torch.randint(0, 256, (4, 3, contract.size, contract.size)).float())
    spec = {"name": "lavit_tiny", "options": options}
    save_checkpoint(path, model.state_dict(), model=spec, contract=contract, card="# Paper\n", int8=int8)
    return path


def four_dimensional(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores ``(B, H, N, M)`` from the convolution through the addition to the softmax."""

    def downsample(self: lavit.AttentionDownsample, scores: Tensor) -> Tensor:
        assert not self.shrink_keys
        return self.mix(lavit.to_tokens(self.queries(lavit.to_map(scores, self.grid)))[None])

    def vanilla(self: lavit.VanillaAttention, x: Tensor, carried: lavit.Scores | None) -> tuple[Tensor, lavit.Scores]:
        keys = self.key_tokens(x)
        scores = torch.bmm(*self.factors(x, keys))
        shape = scores.shape
        if carried is not None:
            scores = scores.reshape(carried.scores.shape) + carried.scores
        attention = scores.softmax(-1).reshape(shape)
        values = self.split(self.value(keys))
        return self.project(self.merge(torch.bmm(attention, values))), lavit.Scores(scores.reshape(shape))

    monkeypatch.setattr(lavit.AttentionDownsample, "forward", downsample)
    monkeypatch.setattr(lavit.VanillaAttention, "forward", vanilla)


def test_executorchs_softmax_over_channels_is_named(
    paper: Path, pictures: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four_dimensional(monkeypatch)
    checkpoint = load_checkpoint(paper)
    program = int8_program(checkpoint)
    paths = [export(program, checkpoint, kind, tmp_path) for kind in ("executorch", "onnx")]
    assert [result.first for result in run(program, paths, pictures)] == [None, None]
    monkeypatch.setattr(executorch, "softmax_in_three_dimensions", lambda module: PassResult(module, False))
    (pte,) = run(program, [export(program, checkpoint, "executorch", tmp_path)], pictures)
    assert pte.first is not None
    assert (pte.first.block, pte.first.layer, pte.first.op) == ("stages.1.blocks.0", "stages.1.blocks.0.attention", "softmax")
    assert "in block stages.1.blocks.0, at softmax of stages.1.blocks.0.attention" in sentence(pte, PROGRAM)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("executorch", "stages.2.blocks.1.ffn.expand.conv"),
        ("onnx", "stages.2.blocks.0.attention.query.conv"),
        ("coreml", "stages.3.embedding.channels.conv"),
    ],
)
def test_a_wrong_weight_scale_is_named(
    kind: str, path: str, program: ExportedProgram, checkpoint: Checkpoint, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    wrong = copy.deepcopy(program)
    wrong.state_dict[f"model.{path}.quantize_weight.scale"].mul_(1.5)
    (result,) = run(program, [export(wrong, checkpoint, kind, tmp_path)], pictures)
    assert [layer.layer for layer in result.layers if layer.bad] == [path]
    assert result.first is not None
    assert path.startswith(f"{result.first.block}.")
    assert [block.block for block in result.blocks if block.bad] == [result.first.block]


def stored_scale_times(factor: float, scale: float, path: Path) -> None:
    """Edits the file: wherever this scale is stored."""
    if path.suffix == ".pte":
        from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary

        file = deserialize_pte_binary(path.read_bytes())
        for data in file.program.backend_delegate_data:
            graph, rest = read_graph(bytes(data.data))
            for value in graph.xvalues:
                grid = getattr(value.xvalueUnion, "quantParams", None)
                if getattr(grid, "zeroPoint", None) is not None and grid.scale == np.float32(scale):
                    grid.scale *= factor
            data.data = write_graph(graph, rest)
        path.write_bytes(bytes(serialize_pte_binary(file)))
    elif path.suffix == ".onnx":
        import onnx

        model = onnx.load(path)
        for tensor in model.graph.initializer:
            value = onnx.numpy_helper.to_array(tensor)
            if value.shape == () and value == np.float32(scale):
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.float32(value * factor), tensor.name))
        onnx.save(model, path)
    else:
        import coremltools

        spec = coremltools.utils.load_spec(str(path))
        for operation in spec.mlProgram.functions["main"].block_specializations["CoreML7"].operations:
            stored = operation.attributes["val"].immediateValue.tensor.bytes if operation.type == "const" else None
            if stored is not None and stored.values == np.float16(scale).tobytes():
                stored.values = np.float16(scale * factor).tobytes()
        (path / "Data" / "com.apple.CoreML" / "model.mlmodel").write_bytes(spec.SerializeToString())


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_stored_scale_is_named_with_both_scales(
    kind: str, program: ExportedProgram, sound: dict[str, Path], pictures: list[np.ndarray], tmp_path: Path
) -> None:
    layer = "stages.2.blocks.0.attention.project.conv"
    scale = next(p.scale for p in Reference(program).points.values() if (p.layer, p.op) == (layer, "conv2d"))
    path = tmp_path / sound[kind].name
    (shutil.copytree if sound[kind].is_dir() else shutil.copy)(sound[kind], path)
    assert scale is not None
    stored_scale_times(1.25, scale, path)
    (result,) = run(program, [path], pictures)
    assert result.first is not None
    assert (result.first.block, result.first.layer, result.first.op) == ("stages.2.blocks.0", layer, "conv2d")
    assert result.first.stored_scale == pytest.approx(1.25 * scale, rel=1e-3)
    assert f"in the program {scale:.6g}" in sentence(result, PROGRAM)


def test_an_artifact_of_another_program_is_refused(
    checkpoint: Checkpoint, sound: dict[str, Path], pictures: list[np.ndarray]
) -> None:
    with pytest.raises(UserError, match="is not made from this program"):
        run(float_program(checkpoint), [sound["executorch"]], pictures)


def test_float_artifacts_name_no_layer(checkpoint: Checkpoint, pictures: list[np.ndarray], tmp_path: Path) -> None:
    program = float_program(checkpoint)
    points = Reference(program).points.values()
    # On x86-64, ONNX Runtime keeps float maps in a blocked layout, where a convolution takes in the addition and the ReLU behind
    # it: of the values of these three it shows those alone that leave the layout, mostly around attention.
    outside = {(point.layer, point.op) for point in points if point.op in ("bmm", "linear", "mean")}
    for kind in KINDS:
        (result,) = run(program, [export(program, checkpoint, kind, tmp_path)], pictures)
        assert result.first is None
        if kind == "onnx":
            assert outside <= {(layer.layer, layer.op) for layer in result.layers}
        assert len(result.layers) >= (0.25 if kind == "onnx" else 0.75) * len(points)
        assert result.notes == []


def test_the_command_passes_a_sound_bundle_and_fails_a_wrong_one(
    bundle: Path, int8: Path, data: Path, program: ExportedProgram, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--checkpoint", str(int8), "--locate", "2", "--data", str(data), "--json"]
    assert verify([str(bundle), *command]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["passed"]
    assert {artifact["artifact"]: artifact["pictures"] for artifact in result["artifacts"]} == dict.fromkeys(
        ("model.pte", "model.onnx", "model.ort", "model.mlpackage"), 2
    )
    assert all(artifact["first"] is None for artifact in result["artifacts"])

    point = next(point for point in Reference(program).points.values() if point.op == "quantize")
    scale = point.scale
    assert scale is not None
    wrong = Path(shutil.copytree(bundle, tmp_path / "wrong"))
    stored_scale_times(1.5, scale, wrong / "model.onnx")
    manifest = json.loads((wrong / MANIFEST).read_text())
    manifest["artifacts"] = {"model.onnx": {"sha256": artifact_sha256(wrong / "model.onnx")}}
    (wrong / MANIFEST).write_text(json.dumps(manifest))
    assert verify([str(wrong), *command]) == 1
    result = json.loads(capsys.readouterr().out)
    (artifact,) = result["artifacts"]
    assert not result["passed"]
    assert (artifact["first"]["block"], artifact["first"]["op"]) == (point.block, "quantize")
    assert artifact["first"]["stored_scale"] == pytest.approx(1.5 * scale)
    with pytest.raises(UserError, match="at least 1 picture"):
        verify([str(wrong), "--locate", "0"])
