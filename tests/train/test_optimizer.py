from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lavit_edge import create_model
from lavit_edge.train.__main__ import main
from lavit_edge.train.loop import Run
from lavit_edge.train.optimizer import Muon, orthogonal, parameter_groups


@pytest.mark.parametrize("shape", [(8, 8), (24, 100), (100, 24)])
def test_orthogonal_keeps_the_directions_and_makes_their_lengths_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonal(matrix)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    found = u.T @ result @ vh.T  # diagonal where the directions are those of the matrix
    sound = s > 0.05 * s[0]  # smaller ones take more than five steps
    assert found.diagonal()[sound].min() > 0.6
    assert found.diagonal()[sound].max() < 1.3
    assert (found - found.diagonal().diag()).abs().max() < 0.05
    assert result.dtype == torch.float32


def test_matrices_are_the_decayed_weights_of_dense_layers() -> None:
    model = create_model("lavit_mobile_s", num_classes=10, image_size=32)
    groups = parameter_groups(model, model, 0.05)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert sorted(names[id(p)] for group in groups for p in group["params"]) == sorted(names.values())
    matrices = {names[id(p)] for group in groups if group["matrices"] for p in group["params"]}
    assert {
        "stages.0.embedding.2.conv.weight",
        "stages.1.blocks.0.ffn.expand.conv.weight",
        "stages.3.blocks.0.attention.query.conv.weight",
    } <= matrices
    for left_out in ("head.weight", "theta", "mixer", "spatial", "bias", "norm"):
        assert not any(left_out in name for name in matrices)
    assert all(group["weight_decay"] == 0.05 for group in groups if group["matrices"])


def test_a_step_moves_matrices_by_muon_and_the_rest_by_adamw() -> None:
    torch.manual_seed(0)
    dense, vector = nn.Parameter(torch.randn(16, 3, 3, 3)), nn.Parameter(torch.randn(16))
    alone = nn.Parameter(vector.detach().clone())
    groups = [
        {"params": [dense], "matrices": True, "weight_decay": 0.5},
        {"params": [vector], "matrices": False, "weight_decay": 0.0},
    ]
    muon, adamw = Muon(groups, lr=0.1), torch.optim.AdamW([alone], lr=0.1, weight_decay=0.0, fused=True)
    before = dense.detach().clone()
    dense.grad, vector.grad, alone.grad = torch.randn_like(dense), torch.randn(16), None
    gradient, alone.grad = dense.grad.clone(), vector.grad.clone()
    muon.step()
    adamw.step()
    assert torch.equal(vector, alone)
    moved = (before * (1 - 0.1 * 0.5) - dense).detach().flatten(1) / (0.1 * 0.2 * 27**0.5)
    wanted = orthogonal(gradient.flatten(1))  # the first momentum points along the gradient
    assert (moved - wanted).norm() < 0.05 * wanted.norm()  # bf16, of another scale


def test_a_run_with_muon_goes_on_as_if_nothing_had_been(colours: Path, tmp_path: Path) -> None:
    common = "--workers 0 --precision fp32 --device cpu --set optimizer=muon image_size=32 batch_size=8 warmup_epochs=0 epochs=2"

    def train(out: str, *more: str) -> None:
        assert main(["--data", str(colours), "--out", str(tmp_path / out), *common.split(), *more]) == 0

    train("whole")
    save = Run._save

    def stop(self: Run, *, checkpoint: bool) -> None:
        save(self, checkpoint=checkpoint)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            train("parts")
    train("parts", "--resume")
    whole, parts = (load_file(tmp_path / out / "state.safetensors") for out in ("whole", "parts"))
    assert any(name.endswith(".momentum") for name in whole)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
