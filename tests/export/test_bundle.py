"""What a bundle says of itself: provenance, what the self-test sees, the card, and which folder it may replace."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavit_edge.checkpoint import Checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError
from lavit_edge.export import bundle
from lavit_edge.export.bundle import provenance
from lavit_edge.export.config import ExportConfig
from lavit_edge.export.golden import Chosen, Power
from lavit_edge.export.targets import CoremlOptions, OnnxOptions
from lavit_edge.parity.agreement import FLOAT, PROGRAM, Gates, compare
from lavit_edge.parity.summary import Summary

CALIBRATION = [{"path": "cat/1.png", "sha256": "1" * 64}, {"path": "cat/2.png", "sha256": "2" * 64}]
QUANTIZATION: dict[str, Any] = {
    "calibration": CALIBRATION,
    "decision": {"threshold": 0.5},
    "kept": "qat",
    "val_pictures": 300,
    "metrics": {"fp32": {"top1": 0.9}, "ptq": {"top1": 0.7}, "qat": {"top1": 0.8}},
}
CONTRACT = InputContract(64, ("cat", "dog"))
SUMMARY = Summary(True, ("everything is well",), (), ())


def checkpoint(path: Path, **config: Any) -> Checkpoint:
    facts = {"sha256": {"model.safetensors": "3" * 64}, "model": {"name": "m"}, "metrics": {"val_top1": 0.91, "val_pictures": 9}}
    return Checkpoint(path, None, CONTRACT, facts | config)  # type: ignore[arg-type]


def manifest(folder: Path, source: Checkpoint, **more: Any) -> dict[str, Any]:
    """Of a bundle in ``folder`` with an ``.onnx`` of 1,234,000 bytes and a package of two files."""
    (folder / "model.onnx").write_bytes(bytes(1_234_000))
    package = folder / "model.mlpackage"
    for name, size in (("Manifest.json", 4_000), ("Data/weight.bin", 2_000_000)):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(bytes(size))
    artifacts = [package, folder / "model.onnx"]
    return bundle._manifest(source, ExportConfig(("onnx", "coreml")), artifacts, {"onnx": 1.5, "coreml": 2.0}, folder) | more


def test_provenance_names_the_form_that_is_exported_and_what_it_was_calibrated_on(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "mine", quantization=QUANTIZATION, decision={"threshold": 0.25})
    made = provenance(source, "int8", "onnx", OnnxOptions())
    assert made["checkpoint"] == {"name": "mine", "sha256": {"model.safetensors": "3" * 64}}
    assert (made["precision"], made["target"], made["options"], made["model"]) == ("int8", "onnx", {}, {"name": "m"})
    assert (made["val_top1"], made["val_pictures"], made["decision"]) == (0.8, 300, {"threshold": 0.5})
    listed = json.dumps(CALIBRATION, sort_keys=True).encode()
    assert (made["calibration_pictures"], made["calibration_sha256"]) == (2, hashlib.sha256(listed).hexdigest())
    plain = provenance(source, "float", "onnx", OnnxOptions())
    assert (plain["val_top1"], plain["val_pictures"]) == (0.9, 300)
    assert (plain["calibration_pictures"], plain["calibration_sha256"]) == (None, None)


def test_provenance_without_quantisation_has_what_training_measured(tmp_path: Path) -> None:
    made = provenance(checkpoint(tmp_path / "mine", decision={"threshold": 0.25}), "float", "coreml", CoremlOptions())
    assert (made["val_top1"], made["val_pictures"], made["decision"]) == (0.91, 9, {"threshold": 0.25})
    assert made["tools"]["torch"]
    (unjudged := checkpoint(tmp_path / "mine")).config.pop("metrics")
    assert provenance(unjudged, "float", "coreml", CoremlOptions())["val_top1"] is None


def test_the_manifest_counts_the_bytes_of_all_files_of_an_artifact(tmp_path: Path) -> None:
    source = checkpoint(tmp_path.parent / "mine", quantization=QUANTIZATION)
    found = manifest(tmp_path, source)
    assert {name: entry["bytes"] for name, entry in found["artifacts"].items()} == {
        "model.mlpackage": 2_004_000,
        "model.onnx": 1_234_000,
    }
    assert found["artifacts"]["model.onnx"]["sha256"] == hashlib.sha256(bytes(1_234_000)).hexdigest()
    assert found["targets"] == {"onnx": {"options": {}, "seconds": 1.5}, "coreml": {"options": {}, "seconds": 2.0}}
    assert (found["precision"], found["quantization"]) == ("int8", QUANTIZATION)
    assert (tmp_path / found["checkpoint_path"]).resolve() == source.path.resolve()
    assert (found["contract"], found["contract_sha256"]) == (CONTRACT.to_dict(), CONTRACT.sha256)


def test_what_the_selftest_sees_is_told_by_target_and_in_the_card(tmp_path: Path) -> None:
    power = {"float32": Power(6, 2, ()), "float16": Power(6, 2, ("head zeroed", "head negated", "stem.conv rotated"))}
    chosen = Chosen(CONTRACT, {}, 1.0, {}, power)
    told = bundle._power(chosen, {"onnx": "float32", "coreml": "float16"})
    assert {name: (each["planted"], each["seen"]) for name, each in told.items()} == {"onnx": (6, 6), "coreml": (6, 3)}
    source = checkpoint(tmp_path.parent / "mine")
    card = bundle._card(source, manifest(tmp_path, source, selftest=told), {}, SUMMARY).splitlines()
    assert card[card.index("| target | planted | seen | layers of those that it does not see |") + 2 :][:2] == [
        "| onnx | 6 | 6 | none |",
        "| coreml | 6 | 3 | `head`, `stem.conv` |",
    ]
    assert "| model.onnx | 1.23 |" in card
    without = bundle._card(source, manifest(tmp_path, source, selftest={}), {}, SUMMARY)
    assert "planted" not in without


@pytest.mark.parametrize("reference", [PROGRAM, FLOAT])
def test_the_card_has_the_figures_of_each_form_against_its_reference(reference: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    logits = {name: rng.normal(size=(8, 2)) for name in dict.fromkeys((FLOAT, reference, "model.onnx"))}
    logits["model.onnx"] = logits[reference] * np.float64(0.9)  # 20 dB, the same top-1
    targets = logits[reference].argmax(1) ^ (np.arange(8) < 2)  # of 8 pictures 2 are wrong
    sets = {"mine/val": compare(logits, targets, reference, Gates()), "free": compare(logits, None, reference, Gates())}
    (source := checkpoint(tmp_path / "mine")).path.mkdir()
    (source.path / "README.md").write_text("# My model\n")
    card = bundle._card(source, manifest(tmp_path, source, selftest={}), sets, SUMMARY).splitlines()
    assert card[:7] == [
        "# My model",
        "",
        "## This bundle (int8)",
        "",
        "| artifact | MB |",
        "|---|---|",
        "| model.mlpackage | 2.00 |",
    ]
    assert card[7] == "| model.onnx | 1.23 |"
    assert "- everything is well" in card
    labelled, free = (card.index(f"Agreement on 8 pictures ({title}), against {reference}:") for title in sets)
    assert f"| {reference} | 75.00 | | |" in card[labelled:free]
    assert "| model.onnx | 75.00 | 100.0 | 20.0 |" in card[labelled:free]
    assert "| model.onnx | not measured | 100.0 | 20.0 |" in card[free:]
    assert any(line.startswith("`model.mlpackage` was run in the reference evaluator") for line in card)
    assert not any(line.startswith("`model.aimodel`") for line in card)
    other = manifest(tmp_path, source, selftest={})
    other["artifacts"] = {"model.aimodel": other["artifacts"]["model.mlpackage"]}
    assert "`model.aimodel` needs iOS 27 or macOS 27." in bundle._card(source, other, sets, SUMMARY)


def test_a_bundle_of_the_same_checkpoint_and_precision_alone_is_replaced(tmp_path: Path) -> None:
    source, out = checkpoint(tmp_path / "mine"), tmp_path / "out"
    bundle._check_out(out, source, "int8")
    out.mkdir()
    bundle._check_out(out, source, "int8")
    (out / "manifest.json").write_text(json.dumps({"checkpoint": {"sha256": source.config["sha256"]}, "precision": "int8"}))
    bundle._check_out(out, source, "int8")
    for other, precision in ((source, "float"), (checkpoint(tmp_path, sha256={}), "int8")):
        with pytest.raises(UserError, match="another checkpoint or precision"):
            bundle._check_out(out, other, precision)
    for text in ("{}", '{"checkpoint": 3}', "[]", "{"):
        (out / "manifest.json").write_text(text)
        with pytest.raises(UserError, match="is not a bundle"):
            bundle._check_out(out, source, "int8")
