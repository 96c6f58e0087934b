"""What Core ML calls a class, on a net whose logits are the mean red, green and blue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("coremltools")
from lavit_edge.artifact.mlprogram import MLProgram
from lavit_edge.artifact.payload import Golden, Payload
from lavit_edge.contract import InputContract
from lavit_edge.export.coreml import five_axes
from lavit_edge.export.targets import find_target
from lavit_edge.metrics import sqnr
from lavit_edge.quantize.program import export_program
from lavit_edge.selftest import check_outputs

LABELS = ("zebra", "Moth", "ant")  # in the order of no alphabet, which folders of pictures have


class MeanColour(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) / 64


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_classes_are_named_in_the_order_of_the_contract(temperature: float, tmp_path: Path) -> None:
    """And their probabilities, which Vision shows, are by its temperature; the logits are as they were."""
    program = torch.export.export(MeanColour(), (torch.zeros(1, 3, 16, 16),))
    plain = np.zeros((16, 16, 3), np.uint8)
    golden = tuple(Golden(str(index), plain, plain, np.arange(3, dtype=np.float32), 8.0) for index in range(4))
    contract = InputContract(16, LABELS, temperature=temperature)
    payload = Payload(contract, {}, golden, 1.0)
    find_target("coreml").export(program, payload, tmp_path / "model.mlpackage")
    model = MLProgram(tmp_path / "model.mlpackage")
    assert check_outputs(tmp_path / "model.mlpackage", payload).passed
    other = replace(payload, contract=replace(contract, temperature=3.0))
    bright = replace(golden[0], picture=plain + np.array([128, 0, 0], np.uint8))  # of a grey one all are equally probable
    found = check_outputs(tmp_path / "model.mlpackage", replace(other, golden=(bright, *golden[1:])))
    assert "from those of its logits" in found.found
    for index, label in enumerate(LABELS):
        picture = plain.copy()
        picture[..., index] = 128
        result = model.predict({"image": picture})
        assert result["classLabel"] == label
        assert np.asarray(result["logits"]).reshape(-1)[index] == pytest.approx(2, abs=1e-3)
        share = np.e ** (2 / temperature) / (np.e ** (2 / temperature) + 2)
        wanted = {name: share if name == label else (1 - share) / 2 for name in LABELS}
        assert result["classLabel_probs"] == pytest.approx(wanted, abs=1e-3)


class Windows(nn.Module):
    """A map in windows of 4 x 4, tokens of which are moved, and the map again; computes in six axes, or not."""

    def __init__(self, inside: bool) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        windows = x.reshape(1, 3, 4, 4, 4, 4).permute(0, 2, 4, 3, 5, 1)
        tokens = (windows.relu() if self.inside else windows).reshape(16, 16, 3)
        tokens = tokens * tokens.mean(1, keepdim=True) / 255
        x = tokens.reshape(1, 4, 4, 4, 4, 3).transpose(2, 3).permute(0, -1, 1, 2, 3, 4).reshape(1, 3, 16, 16)
        return (x * torch.linspace(0, 1, 16)).mean((2, 3)) / 64


def test_windows_of_a_map_are_cut_in_five_axes(tmp_path: Path) -> None:
    """As Swin's, which coremltools 9.0 refused."""
    x = torch.randint(0, 256, (1, 3, 16, 16), generator=torch.Generator().manual_seed(0)).float()
    program = export_program(Windows(inside=False).eval(), 16)
    wanted = program.module()(x)
    assert torch.equal(five_axes(program.run_decompositions({})).module()(x), wanted)
    plain = np.zeros((16, 16, 3), np.uint8)
    golden = tuple(Golden(str(index), plain, plain, np.zeros(3, np.float32), 8.0) for index in range(4))
    find_target("coreml").export(program, Payload(InputContract(16, LABELS), {}, golden, 1.0), tmp_path / "model.mlpackage")
    picture = x[0].permute(1, 2, 0).numpy().astype(np.uint8)
    found = MLProgram(tmp_path / "model.mlpackage").predict({"image": picture})["logits"]
    assert sqnr(wanted.numpy(), np.asarray(found)) > 50


def test_what_is_computed_in_six_axes_stays() -> None:
    """And is refused by coremltools."""
    program = export_program(Windows(inside=True).eval(), 16).run_decompositions({})
    before = [node.target for node in program.graph.nodes]
    assert [node.target for node in five_axes(program).graph.nodes] == before
