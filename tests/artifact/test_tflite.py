"""A ``.tflite`` that scripts/make_golden_tflite.py made, read, run, verified and timed with LiteRT's runtime alone."""

from __future__ import annotations

import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavit_edge.artifact import runners, tflite
from lavit_edge.artifact.payload import KEY, read_payload
from lavit_edge.artifact.runners import litert_interpreter, open_artifact, read_entries
from lavit_edge.artifact.seal import FIELD, UNSEALED, seal
from lavit_edge.benchmark import __main__ as benchmark
from lavit_edge.benchmark.report import read_report
from lavit_edge.checkpoint import load_checkpoint
from lavit_edge.classifier import Classifier
from lavit_edge.contract.pictures import open_picture
from lavit_edge.data.folder import free_pictures
from lavit_edge.doctor.litert_runtime import int8_layer, layer
from lavit_edge.errors import UserError
from lavit_edge.parity.agreement import Gates
from lavit_edge.quantize import int8_program
from lavit_edge.see.source import open_source
from lavit_edge.selftest import main as selftest_command
from lavit_edge.selftest import selftest
from lavit_edge.verdict.judge import judge
from lavit_edge.verdict.read import read, verdicts
from lavit_edge.verify import VerifyConfig, locate, verify

GOLDEN = Path(__file__).parents[1] / "golden" / "litert"
MODEL = GOLDEN / "bundle" / "model.tflite"
LOOSE = Gates(agreement=0.0, int8_margin=30.0)  # of random weights
Edit = Callable[[Any], object]


def edited(folder: Path, change: Edit) -> Path:
    """A copy whose flatbuffer was changed, under a digest that fits."""
    with tflite.reading(MODEL) as root:
        model = tflite.schema().ModelT.InitFromObj(root)
    change(model)
    path = folder / "model.tflite"
    path.write_bytes(FIELD.sub(UNSEALED.encode(), tflite.packed(model)))
    seal(path)
    return path


def entry(model: Any, name: str) -> Any:
    """The buffer of a payload's entry."""
    return next(model.buffers[each.buffer] for each in model.metadata if each.name == (KEY + name).encode())


def failed(path: Path) -> list[str]:
    return [check.name for check in selftest(path).checks if not check.passed]


def test_it_tests_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert selftest_command([str(MODEL)]) == 0
    assert "self-test passed" in capsys.readouterr().out
    assert MODEL.stat().st_size < 1_000_000


def test_it_carries_the_contract_of_its_checkpoint() -> None:
    payload = read_payload(read_entries(MODEL))
    assert payload.contract == load_checkpoint(GOLDEN / "checkpoint").contract
    assert payload.provenance["target"] == "litert"
    assert len(payload.golden) >= 4 + 16


def test_packing_what_was_read_changes_nothing_and_keeps_buffers_aligned() -> None:
    with tflite.reading(MODEL) as root:
        again = tflite.packed(tflite.schema().ModelT.InitFromObj(root))
        assert again == MODEL.read_bytes()
        tables = [root.Buffers(index)._tab for index in range(root.BuffersLength()) if root.Buffers(index).DataLength()]
        assert {table.Vector(table.Offset(4)) % tflite.ALIGNMENT for table in tables} == {0}


def test_it_is_verified_against_the_program_of_its_checkpoint() -> None:
    checked = verify(GOLDEN / "bundle", VerifyConfig(gates=LOOSE))
    assert checked.passed
    assert checked.layers[0].artifact == "model.tflite"
    assert len(checked.layers[0].layers) >= 30


def test_every_layer_that_computes_is_looked_at_as_it_ran() -> None:
    (found,) = locate(GOLDEN / "bundle", VerifyConfig(pictures=1, gates=LOOSE)).artifacts
    seen = {layer.layer for layer in found.layers}
    assert {name for name in seen if name.endswith((".conv", ".query", ".key", ".value"))}
    assert found.notes == [], "its logits are those of the file itself"
    assert found.first is None


def wrong_scale(model: Any) -> None:
    """Of the last block's expanding layer, whose weights all become a fifth larger."""
    graph = model.subgraphs[0]
    convolutions = [op for name, op in tflite.operators(tflite.schema(), model, graph) if name == "CONV_2D"]
    weight = graph.tensors[convolutions[-2].inputs[1]]
    weight.quantization.scale = weight.quantization.scale * np.float32(1.2)


def exchanged_logits(model: Any) -> None:
    graph = model.subgraphs[0]
    head = [op for name, op in tflite.operators(tflite.schema(), model, graph) if name == "FULLY_CONNECTED"][-1]
    weight = graph.tensors[head.inputs[1]]
    buffer = model.buffers[weight.buffer]
    buffer.data = np.ascontiguousarray(buffer.data.reshape(weight.shape[0], -1)[::-1]).reshape(-1)


def exchanged_labels(model: Any) -> None:
    buffer = entry(model, "contract")
    text = buffer.data.tobytes().replace(b"class 1", b"class X").replace(b"class 2", b"class 1").replace(b"class X", b"class 2")
    buffer.data = np.frombuffer(text, np.uint8)


def as_bundle(folder: Path, path: Path) -> Path:
    """A copy of the bundle with another artifact, and the manifest's digest of it fitted."""
    import json

    from lavit_edge.artifact.bundle import artifact_sha256

    bundle = Path(shutil.copytree(GOLDEN / "bundle", folder / "bundle"))
    shutil.copy(path, bundle / "model.tflite")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["checkpoint_path"] = str(GOLDEN / "checkpoint")
    manifest["artifacts"]["model.tflite"]["sha256"] = artifact_sha256(path)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle


def test_a_wrong_scale_in_one_layer_is_found_and_named(tmp_path: Path) -> None:
    path = edited(tmp_path, wrong_scale)
    assert failed(path)
    (found,) = locate(as_bundle(tmp_path, path), VerifyConfig(pictures=1, gates=LOOSE)).artifacts
    assert found.first is not None
    assert found.first.layer == "stages.0.blocks.1.ffn.expand.conv"


def test_exchanged_logits_and_labels_are_found(tmp_path: Path) -> None:
    assert failed(edited(tmp_path, exchanged_logits))
    path = edited(tmp_path, exchanged_labels)
    assert read_payload(read_entries(path)).contract.labels[1:3] == ("class 2", "class 1")
    assert not verify(as_bundle(tmp_path, path), VerifyConfig(gates=LOOSE)).selftest["model.tflite"]


def test_a_changed_byte_is_found_before_the_runtime_sees_it(tmp_path: Path) -> None:
    path, whole = tmp_path / "model.tflite", MODEL.read_bytes()
    for place in (0, 4, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert failed(path) == ["bytes"]


@pytest.mark.parametrize("name", ["contract", "provenance", "golden"])
def test_an_entry_that_is_missing_or_no_json(name: str, tmp_path: Path) -> None:
    def without(model: Any) -> None:
        model.metadata = [each for each in model.metadata if each.name != (KEY + name).encode()]

    def broken(model: Any) -> None:
        entry(model, name).data = np.frombuffer(b"\xff{", np.uint8)

    for change in (without, broken):
        assert failed(edited(tmp_path, change)) == ["payload"]


def test_the_verdict_is_that_all_of_it_runs_in_xnnpack() -> None:
    plan, profile = read(MODEL)
    verdict = judge(plan, profile)
    assert (verdict.runtime, verdict.precision) == ("LiteRT", "int8")
    assert (verdict.delegated_macs, verdict.breaks) == (1.0, 0)
    assert not verdict.verified
    assert set(verdicts(MODEL)) == {"x86-vnni", "arm64-dotprod", "arm64-i8mm"}
    program = int8_program(load_checkpoint(GOLDEN / "checkpoint"))
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    layers = [op for op in plan.ops if op.has_weights]
    assert len(layers) == sum("conv2d" in str(node.target) or "linear" in str(node.target) for node in calls)
    assert sum(op.int8 for op in layers) == len(layers) - 2, "the first layer and the head are float"


def test_it_is_timed_here_and_beside_one_that_is_not_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tflite.reading(MODEL) as root:
        model = tflite.schema().ModelT.InitFromObj(root)
    for each in model.metadata:
        model.buffers[each.buffer].data = None
    model.metadata = []
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(tflite.packed(model))
    short = ["--minutes", "0.003", "--out", str(tmp_path / "reports")]
    with pytest.raises(UserError, match="has no digest"):
        benchmark.main([str(foreign), *short])
    assert benchmark.main([str(MODEL), *short]) == 0
    assert benchmark.main([str(foreign), "--force", *short]) == 1
    reports = {report["artifact"]["file"]: report for report in map(read_report, (tmp_path / "reports").iterdir())}
    ours, theirs = reports["model.tflite"], reports["foreign.tflite"]
    assert (ours["runtime"]["name"], ours["runtime"]["delegated_macs_permille"]) == ("LiteRT", 1000)
    assert ours["self_test"]["passed"]
    assert ours["latency"]["runs"] >= 50
    assert theirs["artifact"]["content_sha256"] is None
    assert theirs["artifact"]["image_size"] == 64
    assert theirs["self_test"]["forced"]
    assert theirs["latency"]["runs"] >= 50


def test_one_without_a_picture_for_input_is_not_timed(tmp_path: Path) -> None:
    path = tmp_path / "layer.tflite"
    path.write_bytes(layer(np.eye(8, dtype=np.int8)))
    with pytest.raises(UserError, match="one square picture"):
        tflite.on_noise(litert_interpreter(path, 1), path)
    with pytest.raises(UserError, match="does not take a picture"):
        open_artifact(path)(np.zeros((64, 64, 3), np.uint8))


def test_beside_the_converter_it_is_first_tried_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", types.ModuleType("jax"))
    monkeypatch.setattr(runners.os, "fork", None)
    assert open_artifact(MODEL)(np.zeros((64, 64, 3), np.uint8)).shape == (10,)
    monkeypatch.setattr(tflite.sys, "executable", shutil.which("false"))
    damaged = tmp_path / "model.tflite"
    shutil.copy(MODEL, damaged)
    assert open_artifact(damaged), "a refusal is for the caller to see"
    script = tmp_path / "dies"
    script.write_text("#!/bin/sh\nkill -ABRT $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(tflite.sys, "executable", str(script))
    damaged.write_bytes(MODEL.read_bytes() + b"\0")
    with pytest.raises(UserError, match="LiteRT crashes on it"):
        open_artifact(damaged)


def test_it_answers_in_an_app_and_as_a_bundle() -> None:
    picture = free_pictures(load_checkpoint(GOLDEN / "checkpoint").contract).paths[0]
    answer = Classifier(MODEL).classify(picture, top=1)[0]
    source = open_source(GOLDEN / "bundle")
    assert source.form == "int8 .tflite"
    assert source.contract.labels[int(source.probabilities(open_picture(picture)).argmax())] == answer.label


def test_the_doctor_runs_a_layer() -> None:
    assert int8_layer()[0] == "OK"


def test_a_missing_runtime_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [module for module in sys.modules if module.split(".")[0] == "ai_edge_litert"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    for call in (lambda: open_artifact(MODEL), lambda: read_entries(MODEL), lambda: read(MODEL)):
        with pytest.raises(UserError, match=r"pip install 'lavit-edge\[litert-runtime\]'"):
            call()


def test_without_its_converter_the_export_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lavit_edge.export.targets import ALL, TARGETS

    monkeypatch.setitem(sys.modules, "litert_torch", None)
    checkpoint = load_checkpoint(GOLDEN / "checkpoint")
    payload = read_payload(read_entries(MODEL))
    with pytest.raises(UserError, match=r"pip install 'lavit-edge\[litert,litert-runtime\]' in an environment of its own"):
        TARGETS["litert"].export(int8_program(checkpoint), payload, tmp_path / "model.tflite")
    assert list(tmp_path.iterdir()) == []
    assert ALL == ("executorch", "coreml", "onnx")


def test_it_answers_free_pictures_as_its_program_does() -> None:
    checkpoint = load_checkpoint(GOLDEN / "checkpoint")
    module, run = int8_program(checkpoint).module(), open_artifact(MODEL, threads=1)
    import torch

    for picture, _ in list(free_pictures(checkpoint.contract).inputs(checkpoint.contract))[:5]:
        expected = module(torch.from_numpy(picture).permute(2, 0, 1)[None].float().contiguous())[0].detach().numpy()
        assert np.abs(run(picture) - expected).max() < 0.1 * np.ptp(expected)
