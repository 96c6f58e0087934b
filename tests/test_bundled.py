"""The checkpoint that ships with the package, as a newcomer meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lavit_edge.artifact.seal import FIELD, UNSEALED, seal
from lavit_edge.checkpoint import bundled_checkpoints, load_checkpoint
from lavit_edge.export.__main__ import DEFAULT_CHECKPOINT
from lavit_edge.export.__main__ import main as export
from lavit_edge.selftest import selftest
from lavit_edge.verdict import pte


@pytest.fixture(scope="module")
def path() -> Path:
    return bundled_checkpoints()[DEFAULT_CHECKPOINT]


def test_it_is_quantised_and_small(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    assert checkpoint.quantized
    assert checkpoint.contract.size == 160
    assert sum(file.stat().st_size for file in path.iterdir()) < 25e6


def test_its_card_says_how_its_accuracy_came_about(path: Path) -> None:
    card = (path / "README.md").read_text(encoding="utf-8")
    training = load_checkpoint(path).config["training"]
    assert training["recipe"]["teacher"] in card
    assert "from scratch" in card.lower()
    assert "CPU" in card
    assert "seen" in card, "the teacher has been trained on most of the val pictures"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundled") / "bundle"
    assert export(["--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_its_three_artifacts_pass_the_default_gates(path: Path, bundle: Path) -> None:
    result = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    sizes = {name: entry["bytes"] for name, entry in result["artifacts"].items()}
    weights = 4 * sum(parameter.numel() for parameter in load_checkpoint(path).model.parameters())
    assert sizes["model.pte"] < 0.35 * weights
    assert sizes["model.onnx"] < 0.35 * weights
    assert sizes["model.mlpackage"] < 0.35 * weights


@pytest.mark.slow
def test_its_pte_is_one_call_of_the_delegate(bundle: Path) -> None:
    plan = pte.read(bundle / "model.pte")
    assert plan.calls == 1
    assert {op.instruction for op in plan.ops} == {0}, "an operator outside of it"


@pytest.mark.slow
def test_what_its_selftest_sees_of_planted_faults(bundle: Path) -> None:
    seen = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["selftest"]
    assert {target: each["planted"] for target, each in seen.items()} == dict.fromkeys(("executorch", "coreml", "onnx"), 3 * 57)
    assert min(each["seen"] for each in seen.values()) >= 0.9 * 3 * 57
    assert all("stages.3" in fault and "attention" in fault for each in seen.values() for fault in each["blind"])


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["zeroed", "negated", "rotated"])
def test_faults_planted_in_the_onnx_itself_fail_its_selftest(fault: str, bundle: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundle / "model.onnx")
    weights = [tensor for tensor in model.graph.initializer if tensor.name.endswith(".weight")]
    blind = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["selftest"]["onnx"]["blind"]
    shown = [tensor for tensor in weights if not any(f"{path.split()[0]}.weight" in tensor.name for path in blind)]
    assert len(shown) > 0.9 * len(weights)
    for tensor in shown[::6]:
        value, sound = onnx.numpy_helper.to_array(tensor), tensor.SerializeToString()
        channels = 1 if value.ndim == 2 else 0  # a product's weight is stored as it is read
        broken = {"zeroed": np.zeros_like(value), "negated": -value, "rotated": np.roll(value, 1, channels)}[fault]
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(broken), tensor.name))
        file = tmp_path / "model.onnx"
        file.write_bytes(FIELD.sub(UNSEALED.encode(), model.SerializeToString()))
        seal(file)
        assert not selftest(file).passed, tensor.name
        tensor.ParseFromString(sound)
