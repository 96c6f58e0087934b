"""CUDA beside the quantised forms: the int8 program, each artifact, QAT there. Needs the exporters. Not yet run on a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lavit_edge.checkpoint import Checkpoint, bundled_checkpoints, load_checkpoint
from lavit_edge.data.folder import free_pictures
from lavit_edge.metrics import sqnr
from lavit_edge.models.deployed import Deployed
from lavit_edge.parity.agreement import FLOAT
from lavit_edge.quantize.program import int8_program

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch sees none"),
]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(bundled_checkpoints()["lavit_mobile_s_imagenette160"])


@pytest.fixture(scope="module")
def pictures(checkpoint: Checkpoint) -> np.ndarray:
    """uint8 RGB ``(50, size, size, 3)``."""
    return np.stack([picture for picture, _ in free_pictures(checkpoint.contract).inputs(checkpoint.contract)])


@pytest.fixture(scope="module")
def others(checkpoint: Checkpoint, pictures: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Logits ``(50, classes)`` on the CPU: the fp32 model, the fake-quantised one, the int8 program, each artifact."""
    from lavit_edge.artifact.bundle import open_bundle
    from lavit_edge.export.__main__ import main
    from lavit_edge.parity.forms import forms

    out = tmp_path_factory.mktemp("export") / "bundle"
    assert main(["--out", str(out)]) == 0
    runs = forms(checkpoint, open_bundle(out).runnable, int8_program(checkpoint))
    return {name: np.stack([run(picture) for picture in pictures]) for name, run in runs.items()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cuda_is_no_further_from_each_int8_form_than_the_cpu_is(precision, checkpoint, pictures, others) -> None:
    """Independent noises add up: what CUDA adds to the distance between fp32 and int8 is its own distance from the CPU."""
    model = Deployed(load_checkpoint(checkpoint.path).model, checkpoint.contract).eval().cuda()
    planes = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().contiguous().cuda()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
        logits, cpu = model(planes).float().cpu().numpy(), others[FLOAT]
    for name in set(others) - {FLOAT}:
        same, noise = float((logits.argmax(1) == others[name].argmax(1)).mean()), sqnr(others[name], logits)
        print(f"CUDA {precision}, {name}: same top-1 {same:.3f}, {noise:.1f} dB")
        sum_of_both = np.square(others[name] - cpu).sum() + np.square(logits - cpu).sum()
        assert noise >= 10 * np.log10(np.square(others[name]).sum() / sum_of_both) - 1, name
        assert same >= 0.9, name


def test_quantisation_aware_training_runs(fp32: Path, data: Path, tmp_path: Path) -> None:
    from lavit_edge.quantize.__main__ import main

    out = tmp_path / "int8"
    options = ["--epochs", "1", "--max-steps", "2", "--batch-size", "8", "--calibration-pictures", "8", "--device", "cuda"]
    assert main(["--checkpoint", str(fp32), "--data", str(data), "--out", str(out), *options]) == 0
    assert load_checkpoint(out).quantized
