"""``python -m lavit_edge.verdict`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lavit_edge.verdict.__main__ import main, parser

TOKENS, DIM = 256, 128


@pytest.fixture
def quantised(tmp_path: Path) -> Path:
    """One product of uint8 activations and int8 weights, between Q and DQ."""
    from onnx import TensorProto, helper, numpy_helper, save

    weight = np.random.default_rng(0).integers(-127, 128, (DIM, DIM)).astype(np.int8)
    stored = {"scale": np.float32(0.05), "zero": np.uint8(3)}
    stored |= {"weight": weight, "weight_scale": np.float32(0.01), "weight_zero": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["values"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["weights"]),
        helper.make_node("MatMul", ["values", "weights"], ["product"]),
        helper.make_node("QuantizeLinear", ["product", "scale", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "scale", "zero"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [TOKENS, DIM]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "one", ends[:1], ends[1:], tensors), opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    )
    path = tmp_path / "one.onnx"
    save(model, path)
    return path


def test_json_holds_every_figure(quantised: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(quantised), "--target-device", "x86-vnni", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["macs"] == TOKENS * DIM * DIM
    assert result["int8_macs"] == 1
    assert result["precision"] == "int8"
    assert result["verified"]
    assert {group["name"]: group["calls"] for group in result["groups"]} == {
        "QuantizeLinear": 1, "QLinearMatMul": 1, "DequantizeLinear": 1
    }  # fmt: skip
    assert sum(group["time"] for group in result["groups"]) == pytest.approx(1)
    assert sum(group["traffic"] for group in result["groups"]) == pytest.approx(1)


def test_the_table_names_the_device_and_says_what_to_expect(quantised: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(quantised), "--target-device", "arm64-i8mm"])
    out = capsys.readouterr().out
    assert "arm64-i8mm" in out
    assert "QLinearMatMul" in out
    assert "Expect int8 to be" in out
    assert "Never compared with a measurement on 64-bit ARM with SMMLA" in out


def test_an_int8_artifact_that_should_be_slower_has_exit_code_1(quantised: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from lavit_edge.verdict import rates as profiles

    command = [str(quantised), "--target-device", "x86-vnni"]
    profile = profiles.PROFILES["x86-vnni"]
    for rate, code in ((1e4, 0), (1.0, 1)):
        rates = {"ONNX Runtime": dataclasses.replace(profile.rates["ONNX Runtime"], int8_gmacs=rate)}
        monkeypatch.setitem(profiles.PROFILES, "x86-vnni", dataclasses.replace(profile, rates=rates))
        assert main(command) == code


def test_the_help_lists_the_devices() -> None:
    assert "x86-vnni, arm64-dotprod, arm64-i8mm, apple-ane" in " ".join(parser().format_help().split())
