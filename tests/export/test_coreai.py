"""Core AI's artifact, in Apple's own runtime: what it computes, the same bytes each time, and faults that are found."""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

pytest.importorskip("coreai_torch")
from lavit_edge.artifact.aimodel import HASH, METADATA, PROGRAM, AIModel, operations
from lavit_edge.artifact.bundle import Bundle
from lavit_edge.artifact.payload import KEY
from lavit_edge.artifact.runners import open_artifact
from lavit_edge.artifact.seal import UNSEALED, check_seal, seal
from lavit_edge.benchmark.host import check_runs_here
from lavit_edge.benchmark.profiling import profile
from lavit_edge.checkpoint import Checkpoint, load_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import load_input
from lavit_edge.errors import UserError
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import ALL, TARGETS
from lavit_edge.metrics import sqnr
from lavit_edge.parity.agreement import Gates
from lavit_edge.parity.check import _carries_other
from lavit_edge.parity.locate import locate
from lavit_edge.parity.locate_points import Reference
from lavit_edge.quantize import float_program, int8_program
from lavit_edge.quantize.program import DEQUANTIZE, QUANTIZE
from lavit_edge.selftest import selftest
from lavit_edge.verbs import silent
from lavit_edge.verdict.read import verdicts

pytestmark = pytest.mark.slow
Q = torch.ops.quantized_decomposed
Exported = Callable[[ExportedProgram], Path]


@pytest.fixture(scope="module")
def checkpoint(int8: Path) -> Checkpoint:
    return load_checkpoint(int8)


@pytest.fixture(scope="module")
def program(checkpoint: Checkpoint) -> ExportedProgram:
    return int8_program(checkpoint)


@pytest.fixture(scope="module")
def exported(checkpoint: Checkpoint, program: ExportedProgram, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Writes the artifact of a program, with what the sound int8 program answers to the golden pictures."""
    payload = make_payload(program, checkpoint.contract, {"checkpoint": {"sha256": checkpoint.config["sha256"]}}, 20.0)

    def make(other: ExportedProgram) -> Path:
        path = tmp_path_factory.mktemp("coreai") / "model.aimodel"
        TARGETS["coreai"].export(other, payload, path)
        return path

    return make


@pytest.fixture(scope="module")
def artifact(exported: Exported, program: ExportedProgram) -> Path:
    return exported(program)


@pytest.fixture(scope="module")
def pictures(data: Path, checkpoint: Checkpoint) -> list[np.ndarray]:
    return [load_input(path, checkpoint.contract) for path in sorted(data.glob("val/*/0.png"))]


def logits(program: ExportedProgram, pictures: list[np.ndarray]) -> np.ndarray:
    module = program.module()
    with torch.no_grad():
        return np.stack([module(torch.from_numpy(p).permute(2, 0, 1)[None].float().contiguous())[0].numpy() for p in pictures])


def copied(path: Path, folder: Path) -> Path:
    (folder / path.name).mkdir()
    for file in path.iterdir():
        (folder / path.name / file.name).write_bytes(file.read_bytes())
    return folder / path.name


def test_it_computes_what_the_int8_program_computes(artifact, program, pictures) -> None:
    run = open_artifact(artifact)
    given = np.stack([run(picture) for picture in pictures])
    assert sqnr(logits(program, pictures), given) > 18  # as the other targets' tests allow a tiny model; 100 dB and more measured
    assert selftest(artifact).passed


def test_float_is_fp32(checkpoint, exported, pictures) -> None:
    program = float_program(checkpoint)
    run = open_artifact(exported(program))
    assert sqnr(logits(program, pictures), np.stack([run(picture) for picture in pictures])) > 90


class Grids(nn.Module):
    """Values through two grids and through a weight's, as the int8 program has them."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("weight", torch.arange(-127, 128, dtype=torch.int8)[:252].reshape(3, 84))
        self.register_buffer("scales", torch.tensor([scale, scale * 1.1, scale / 3]))
        self.register_buffer("zeros", torch.zeros(3, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        for scale, zero_point in ((self.scale, -7), (2 * self.scale, 100)):
            x = Q.dequantize_per_tensor(
                Q.quantize_per_tensor(x, scale, zero_point, -128, 127, torch.int8), scale, zero_point, -128, 127, torch.int8
            )
        weight = Q.dequantize_per_channel(self.weight, self.scales, self.zeros, 0, -127, 127, torch.int8)
        return torch.cat([x, weight], 0)


@torch.no_grad()
def test_grids_are_the_programs_to_the_bit(tmp_path: Path) -> None:
    """Powers of two, so that ties are ties; codes beyond both ends; and the weights of each channel."""
    from lavit_edge.export.coreai import convert

    x = torch.linspace(-200, 200, 801).repeat(3)[: 3 * 84 * 9].reshape(-1, 84) * 0.0625  # steps of a quarter and less
    module = Grids(0.125).eval()
    program = torch.export.export(module, (x,))
    path = tmp_path / "model.aimodel"
    convert(program).save_asset(path)
    given = AIModel(path).run(x.numpy())["logits"]
    np.testing.assert_array_equal(given, module(x).numpy())


def test_int8_layers_stay_int8(artifact, program) -> None:
    found = operations(artifact)
    names = [operation["name"] for operation in found]
    targets = [node.target for node in program.graph.nodes]
    assert names.count("quantize") == targets.count(QUANTIZE)
    weights = [found[operation["operands"][0]] for operation in found if operation["name"] == "dequantize"]
    stored = sum(np.prod(each["shape"]) for each in weights if each["name"] == "constant" and each["type"] == "si8")
    assert stored == sum(b.numel() for b in program.buffers() if b.dtype == torch.int8)
    judged = verdicts(artifact)["apple-ane"]
    assert judged.runtime == "Core AI"
    assert judged.int8_macs > 0.8


AGAIN = """
import sys
from pathlib import Path
from lavit_edge.checkpoint import load_checkpoint
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import TARGETS
from lavit_edge.quantize import int8_program
checkpoint = load_checkpoint(Path(sys.argv[1]))
program = int8_program(checkpoint)
payload = make_payload(program, checkpoint.contract, {"checkpoint": {"sha256": checkpoint.config["sha256"]}}, 20.0)
TARGETS["coreai"].export(program, payload, Path(sys.argv[2]))
"""


def test_another_process_writes_the_same_bytes(artifact, int8, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "4711")
    again = tmp_path / "model.aimodel"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", AGAIN, str(int8), str(again)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # the converter's own lines are held back
    for name in (PROGRAM, HASH, METADATA):
        assert (again / name).read_bytes() == (artifact / name).read_bytes(), name
    assert check_seal(again) == check_seal(artifact)


def test_every_layer_is_compared(artifact, program, pictures) -> None:
    (located,) = locate(program, [artifact], pictures[:2], Gates(), silent())
    assert located.first is None
    assert located.runtime == "Core AI"
    assert len(located.layers) >= 0.95 * len(Reference(program).points)
    assert located.notes == []


def test_a_wrong_scale_in_one_layer_is_found(exported, program, pictures) -> None:
    wrong = copy.deepcopy(program)
    codes = [node for node in wrong.graph.nodes if node.target == QUANTIZE][20]
    for node in (codes, *(user for user in codes.users if user.target == DEQUANTIZE)):
        node.args = (node.args[0], node.args[1] * 1.5, *node.args[2:])
    (located,) = locate(program, [exported(wrong)], pictures[:2], Gates(), silent())
    assert located.first is not None
    assert located.first.stored_scale == pytest.approx(1.5 * located.first.scale, rel=1e-6)
    assert located.first.scale == program.graph.find_nodes(op="call_function", target=QUANTIZE)[20].args[1]


def test_exchanged_labels_are_found(artifact, checkpoint, tmp_path) -> None:
    path = copied(artifact, tmp_path)
    metadata = json.loads((path / METADATA).read_text())
    entries = metadata["creatorDefinedMetadata"]
    contract = json.loads(entries[KEY + "contract"])
    contract["labels"][:2] = contract["labels"][1::-1]
    other = InputContract.from_json(json.dumps(contract))
    entries |= {KEY + "contract": other.to_json(), KEY + "digest": UNSEALED}
    (path / METADATA).write_text(json.dumps(metadata))
    seal(path)
    manifest = {"contract": checkpoint.contract.to_dict(), "contract_sha256": checkpoint.contract.sha256}
    assert _carries_other(artifact, Bundle(tmp_path, manifest), checkpoint) is None
    assert _carries_other(path, Bundle(tmp_path, manifest), checkpoint) == "its contract is not the checkpoint's"


@pytest.mark.parametrize("name", [PROGRAM, HASH, METADATA])
def test_a_changed_byte_is_found(name, artifact, tmp_path) -> None:
    path = copied(artifact, tmp_path)
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    result = selftest(path)
    assert [check.name for check in result.checks] == ["bytes"]
    assert not result.passed


def test_a_resealed_program_of_other_weights_fails_its_self_test(artifact, tmp_path) -> None:
    """The digest can be written again by whoever changes a file; the golden pictures cannot."""
    path = copied(artifact, tmp_path)
    content = (path / PROGRAM).read_bytes()
    middle = len(content) // 2  # stored weights
    changed = content[:middle] + bytes(b ^ 0x40 for b in content[middle : middle + 4000]) + content[middle + 4000 :]
    (path / PROGRAM).write_bytes(changed)
    (path / HASH).write_bytes(hashlib.sha256(changed).digest())
    metadata = json.loads((path / METADATA).read_text())
    metadata["creatorDefinedMetadata"][KEY + "digest"] = UNSEALED
    (path / METADATA).write_text(json.dumps(metadata))
    seal(path)
    try:
        assert not selftest(path).passed
    except UserError as error:
        assert "damaged" in str(error)  # noqa: PT017


def test_its_time_is_no_latency(artifact) -> None:
    for refuse in (check_runs_here, profile):
        with pytest.raises(UserError, match="reference interpreter, and its time is no latency"):
            refuse(artifact)


def test_it_is_made_only_when_it_is_named() -> None:
    assert set(ALL) == {"executorch", "coreml", "onnx"}


def test_where_it_cannot_be_had(program, checkpoint, artifact, tmp_path, monkeypatch) -> None:
    payload = make_payload(program, checkpoint.contract, {}, 1.0)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "coreai.authoring", None)
        for call in (
            lambda: TARGETS["coreai"].export(program, payload, tmp_path / "model.aimodel"),
            lambda: open_artifact(artifact),
        ):
            with pytest.raises(UserError, match=r"pip install 'lavit-edge\[coreai\]'"):
                call()
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UserError, match=r"Core AI runs on macOS and on Linux x86-64 with glibc 2\.34 or newer; not here"):
        open_artifact(artifact)
    assert list(tmp_path.iterdir()) == []
