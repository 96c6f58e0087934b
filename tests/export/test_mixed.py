"""A checkpoint with further float layers, among them one between int8 layers, goes through every target as any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.export import ExportedProgram

from lavit_edge.artifact.runners import open_artifact
from lavit_edge.checkpoint import Checkpoint, load_checkpoint
from lavit_edge.contract.pictures import load_input
from lavit_edge.export import executorch
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import TARGETS, ExecutorchOptions
from lavit_edge.metrics import sqnr
from lavit_edge.quantize.program import fake_quantized, float_program, int8_program

Form = tuple[Checkpoint, ExportedProgram]


@pytest.fixture(scope="module")
def form(mixed: Path) -> Form:
    checkpoint = load_checkpoint(mixed)
    return checkpoint, int8_program(checkpoint)


@pytest.fixture(scope="module")
def pictures(data: Path, form: Form) -> list[np.ndarray]:
    return [load_input(path, form[0].contract) for path in sorted(data.glob("val/*/[0-2].png"))]


def logits(module: torch.nn.Module, pictures: list[np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([module(torch.from_numpy(p).permute(2, 0, 1)[None].float().contiguous()) for p in pictures]).numpy()


def test_the_program_is_the_fake_quantised_model_with_those_layers_in_float(form, int8, pictures) -> None:
    checkpoint, program = form
    got = logits(program.module(), pictures)
    assert sqnr(logits(fake_quantized(checkpoint), pictures), got) > 37
    layers = [
        node for node in program.graph.nodes if node.target in (torch.ops.aten.linear.default, torch.ops.aten.conv2d.default)
    ]
    weights = torch.ops.quantized_decomposed.dequantize_per_channel.default
    assert sum(node.args[1].target is not weights for node in layers) == 2 + 4
    assert not np.array_equal(got, logits(int8_program(load_checkpoint(int8)).module(), pictures))
    assert sqnr(logits(float_program(checkpoint).module(), pictures), got) > 12  # 14.6


def check(path: Path, form: Form, pictures: list[np.ndarray], decibels: float) -> None:
    run = open_artifact(path, threads=1)
    got, wanted = np.stack([run(picture) for picture in pictures]), logits(form[1].module(), pictures)
    assert sqnr(wanted, got) >= decibels  # as for the unmixed model
    assert (got.argmax(1) == wanted.argmax(1)).mean() > 0.6


@pytest.mark.parametrize(("name", "decibels"), [("onnx", 26), ("coreml", 15)])
def test_the_artifact_computes_the_program(name, decibels, form, pictures, tmp_path) -> None:
    checkpoint, program = form
    path = tmp_path / f"model{TARGETS[name].suffix}"
    TARGETS[name].export(program, make_payload(program, checkpoint.contract, {}, 50.0), path)
    check(path, form, pictures, decibels)


@pytest.mark.slow
def test_executorch_still_delegates_every_layer_and_computes_the_program(form, pictures, tmp_path) -> None:
    _, program = form
    lowered = executorch.lower(program, ExecutorchOptions())
    assert executorch.undelegated(lowered) == {}
    path = tmp_path / "model.pte"
    path.write_bytes(lowered.to_executorch().buffer)
    check(path, form, pictures, 26)  # 31 to 140 dB, as the CPU rounds ties
