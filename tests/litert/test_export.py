"""What LiteRT's converter makes of the smallest LaViT; run where it is installed (``.ci/litert``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lavit_edge.artifact import tflite
from lavit_edge.artifact.payload import KEY
from lavit_edge.artifact.runners import litert_interpreter, open_artifact, read_entries
from lavit_edge.artifact.seal import check_seal
from lavit_edge.checkpoint import load_checkpoint
from lavit_edge.doctor.smallest import CONTRACT, save_smallest, smallest
from lavit_edge.errors import UserError
from lavit_edge.export.__main__ import main as export
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import TARGETS
from lavit_edge.metrics import sqnr
from lavit_edge.parity.agreement import Gates
from lavit_edge.parity.locate import locate
from lavit_edge.quantize import float_program
from lavit_edge.verbs import silent

ONCE = """
import sys
from pathlib import Path
from lavit_edge.doctor.smallest import CONTRACT, smallest
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import TARGETS
program = smallest().program
TARGETS["litert"].export(program, make_payload(program, CONTRACT, {"test": 1}, 1.0), Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("litert") / "model.tflite"
    program = smallest().program
    TARGETS["litert"].export(program, make_payload(program, CONTRACT, {"test": 1}, 1.0), path)
    return path


def logits(path: Path) -> np.ndarray:
    run = open_artifact(path, threads=1)
    return np.stack([run(picture) for picture in smallest().inputs.permute(0, 2, 3, 1).to(torch.uint8).numpy()])


def test_it_computes_the_int8_program(artifact: Path) -> None:
    assert sqnr(smallest().logits, logits(artifact)) >= 25, "ties are rounded apart on some CPUs; a fault leaves less than 10"
    pictures = smallest().inputs[:2].permute(0, 2, 3, 1).to(torch.uint8).numpy()
    (found,) = locate(smallest().program, [artifact], list(pictures), Gates(), silent())
    assert found.first is None
    assert len(found.layers) >= 30


def test_its_file(artifact: Path) -> None:
    assert [file.name for file in artifact.parent.iterdir()] == ["model.tflite"]
    with tflite.reading(artifact) as root:
        model = tflite.schema().ModelT.InitFromObj(root)
    (signature,) = model.signatureDefs
    assert [value.name for value in signature.inputs] == [b"image"]
    assert [value.name for value in signature.outputs] == [b"logits"]
    (graph,) = model.subgraphs
    stored = [(model.buffers[tensor.buffer].data, tensor) for tensor in graph.tensors]
    int8 = [tensor for data, tensor in stored if data is not None and tensor.type == tflite.schema().TensorType.INT8]
    assert len(int8) == 14, "13 convolutions and the one weight that both linear layers have"
    assert not {name for name in map(str, (tensor.name for tensor in graph.tensors)) if "/" in name or "\\" in name}, "no paths"
    assert sys.prefix.encode() not in artifact.read_bytes()
    assert any(op["op_name"] == "DELEGATE" for op in litert_interpreter(artifact, 1)._get_ops_details())


def test_it_carries_its_payload(artifact: Path) -> None:
    payload = make_payload(smallest().program, CONTRACT, {"test": 1}, 1.0)
    assert read_entries(artifact) == payload.entries() | {"digest": f"{KEY}sha256:{check_seal(artifact)}"}


def test_another_process_with_another_hash_seed_writes_the_same_bytes(artifact: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-W", "ignore", "-c", ONCE, str(tmp_path / "model.tflite")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", ""), "the converter tells of each step unless it is kept from it"
    assert (tmp_path / "model.tflite").read_bytes() == artifact.read_bytes()


def test_what_it_cannot_convert_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x).mean((2, 3)) @ torch.ones(3, 10)

    program = torch.export.export(Odd().eval(), (torch.zeros(1, 3, 64, 64),))
    payload = make_payload(program, CONTRACT, {}, 1.0)
    with pytest.raises(UserError, match=r"litert-torch cannot convert this program: .*bessel_j0") as refusal:
        TARGETS["litert"].export(program, payload, tmp_path / "model.tflite")
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_float_bundle_by_the_command(tmp_path: Path) -> None:
    save_smallest(tmp_path / "checkpoint")
    arguments = ["--target", "litert", "--precision", "float", "--checkpoint", str(tmp_path / "checkpoint")]
    assert export([*arguments, "--out", str(tmp_path / "bundle")]) == 0
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert set(manifest["artifacts"]) == {"model.tflite"}
    assert manifest["tools"]["litert-torch"]
    program = float_program(load_checkpoint(tmp_path / "checkpoint")).module()
    with torch.no_grad():
        expected = torch.cat([program(picture[None]) for picture in smallest().inputs]).numpy()
    assert sqnr(expected, logits(tmp_path / "bundle" / "model.tflite")) >= 90
