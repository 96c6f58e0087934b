"""An artifact tests itself: it passes as exported, and says what differs when something was changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from lavit_edge.artifact.payload import KEY, Golden, Payload, read_payload
from lavit_edge.artifact.runners import read_entries
from lavit_edge.artifact.seal import FIELD, UNSEALED, seal
from lavit_edge.errors import UserError
from lavit_edge.selftest import main, selftest

ARTIFACTS = ("model.pte", "model.onnx", "model.ort", "model.mlpackage")


@pytest.mark.parametrize("name", ARTIFACTS)
def test_an_exported_artifact_passes(name: str, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bundle / name), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["passed"]
    assert [check["name"] for check in result["checks"][:2]] == ["bytes", "payload"]
    pictures = len(read_payload(read_entries(bundle / name)).golden)
    assert pictures >= 4 + (0 if name == "model.mlpackage" else 16)  # flat colours that show nothing in fp16 are left out
    assert len(result["checks"]) == 2 + 2 * pictures + 1 + (name == "model.mlpackage")
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert result["digest"] == manifest["artifacts"][name]["content_sha256"]
    assert result["provenance"]["checkpoint"] == manifest["checkpoint"]
    assert main([str(bundle / name)]) == 0
    assert "self-test passed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ARTIFACTS)
def test_a_changed_byte_fails_before_any_runtime_sees_it(name: str, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    (shutil.copytree if (bundle / name).is_dir() else shutil.copy)(bundle / name, path)
    for file in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
        whole = file.read_bytes()
        for index in (0, len(whole) // 3, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:index] + bytes([whole[index] ^ 4]) + whole[index + 1 :])
            result = selftest(path)
            assert not result.passed
            assert [check.name for check in result.checks] == ["bytes"]
        file.write_bytes(whole)
    assert selftest(path).passed


def resealed(source: Path, path: Path, change: dict[str, str | None], graph: onnx.GraphProto | None = None) -> Path:
    """A copy of an ``.onnx`` with other metadata (None: without the entry), or another graph, and a digest that fits."""
    model = onnx.load(source)
    metadata = {prop.key: prop.value for prop in model.metadata_props} | {KEY + "digest": UNSEALED}
    metadata = {key: change.get(key.removeprefix(KEY), value) for key, value in metadata.items()}  # type: ignore[misc]
    onnx.helper.set_model_props(model, {key: value for key, value in metadata.items() if value is not None})
    if graph is not None:
        model.graph.CopyFrom(graph)
    onnx.save(model, path)
    seal(path)
    return path


def failed(path: Path) -> dict[str, str]:
    return {check.name: check.found for check in selftest(path).checks if not check.passed}


def test_an_artifact_without_its_payload_fails(bundle: Path, tmp_path: Path) -> None:
    for entry in ("contract", "provenance", "golden"):
        (name, found) = failed(resealed(bundle / "model.onnx", tmp_path / "m.onnx", {entry: None})).popitem()
        assert name == "payload"
        assert f"'{entry}' is missing" in found
    stripped = tmp_path / "stripped.onnx"
    stripped.write_bytes(FIELD.sub(b"", (bundle / "model.onnx").read_bytes()))
    assert "has no digest" in failed(stripped)["bytes"]


def test_wrong_weights_under_a_fresh_digest_name_the_label(bundle: Path, tmp_path: Path) -> None:
    graph = onnx.load(bundle / "model.onnx").graph
    weight = next(tensor for tensor in graph.initializer if list(tensor.dims) == [5, 64])  # of the head
    value = onnx.numpy_helper.to_array(weight).copy()
    value[3] *= -3
    weight.CopyFrom(onnx.numpy_helper.from_array(value, weight.name))
    found = failed(resealed(bundle / "model.onnx", tmp_path / "m.onnx", {}, graph))
    assert "close pictures" in found
    assert any("label 'direction3' differs most" in text for text in found.values())


def test_exchanged_classes_of_an_mlpackage_are_found(bundle: Path, tmp_path: Path) -> None:
    """Vision shows the class list's names, the contract and the logits know nothing of it."""
    from lavit_edge.artifact.mlprogram import specification

    package = tmp_path / "model.mlpackage"
    shutil.copytree(bundle / "model.mlpackage", package)
    model = specification(package)
    (function,) = model.mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    (classify,) = (operation for operation in block.operations if operation.type == "classify")
    classes = classify.inputs["classes"].arguments[0].value.immediateValue.list.values
    first, *others = (each.SerializeToString() for each in classes[:3])
    for each, text in zip(classes[:3], [*others, first], strict=True):
        each.ParseFromString(text)
    content = FIELD.sub(UNSEALED.encode(), model.SerializeToString(deterministic=True))
    (package / "Data" / "com.apple.CoreML" / "model.mlmodel").write_bytes(content)
    seal(package)
    assert failed(package) == {"labels": "its classes are not the contract's labels in their order"}


def test_another_contract_shows_in_preprocessing(bundle: Path, tmp_path: Path) -> None:
    payload = read_payload(read_entries(bundle / "model.onnx"))
    other = replace(payload, contract=replace(payload.contract, resize="crop"))
    found = failed(resealed(bundle / "model.onnx", tmp_path / "m.onnx", {"contract": other.contract.to_json()}))
    assert {"cat: preprocessing", "coffee: preprocessing", "rocket: preprocessing"} <= set(found)
    assert "astronaut: preprocessing" not in found, "a square picture is the same either way"
    assert "resizing or channel order differs" in found["coffee: preprocessing"]


def test_swapped_channels_and_permuted_labels_are_found(bundle: Path, tmp_path: Path) -> None:
    payload = read_payload(read_entries(bundle / "model.onnx"))

    def with_golden(change) -> Payload:  # type: ignore[no-untyped-def]
        return replace(payload, golden=tuple(change(golden) for golden in payload.golden))

    def swapped(golden: Golden) -> Golden:
        return replace(golden, picture=np.ascontiguousarray(golden.picture[..., ::-1]))

    def rolled(golden: Golden) -> Golden:
        return replace(golden, logits=np.roll(golden.logits, 1))

    for change, part in ((swapped, "preprocessing"), (rolled, "logits")):
        golden = with_golden(change).metadata()[KEY + "golden"]
        found = failed(resealed(bundle / "model.onnx", tmp_path / "m.onnx", {"golden": golden}))
        assert any(name.endswith(part) for name in found)


def test_onnx_needs_no_torch(bundle: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfor name in ('torch', 'rich', 'onnx', 'executorch', 'coremltools'): sys.modules[name] = None\n"
        f"from lavit_edge.selftest import main\nsys.exit(main([{str(bundle / 'model.onnx')!r}]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ARTIFACTS)
def test_the_command_passes_in_a_process_of_its_own(name: str, bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lavit_edge.selftest", str(bundle / name)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert "self-test passed" in result.stdout


def test_what_is_no_artifact_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "model.onnx", tmp_path):
        with pytest.raises(UserError, match="is not an artifact"):
            main([str(path)])
