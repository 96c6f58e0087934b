from __future__ import annotations

import email.message
import json
import os
import shutil
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lavit_edge.doctor import __main__ as command
from lavit_edge.doctor import host, pins
from lavit_edge.doctor.child import check
from lavit_edge.doctor.findings import Finding, Probe, examine


def pretend(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    real = pins.installed
    monkeypatch.setattr(pins, "installed", lambda name: versions.get(name, real(name)) if name in versions else real(name))


def version_of(name: str) -> Finding:
    return next(finding for finding in pins.versions() if finding.name == name)


def test_a_version_off_its_pin_fails_and_the_pin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    (pin,) = (wanted for wanted in pins.requirements()["executorch"] if wanted.name == "executorch")
    assert version_of("executorch").status == "OK"
    pretend(monkeypatch, executorch="0.1")
    found = version_of("executorch")
    assert found.status == "FAIL"
    assert found.detail.startswith("0.1, wanted")
    assert found.mend == f"pip install 'executorch{pin.specifier}'"


def test_a_missing_toolchain_is_no_failure_and_a_missing_base_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, onnxruntime=None, pillow=None)
    assert (version_of("onnxruntime").status, version_of("onnxruntime").mend) == (
        "not installed",
        "pip install 'lavit-edge[onnx]'",
    )
    assert version_of("pillow").status == "FAIL"
    (found,) = check("onnx")
    assert (found.status, found.detail, found.mend) == ("not installed", "onnxruntime", "pip install 'lavit-edge[onnx]'")


def test_pins_are_those_of_the_package_installed_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", absent)
    checkout = pins.requirements()
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    package = email.message.Message()
    package["Requires-Python"] = project["requires-python"]
    package["Requires-Dist"] = "evil==6; python_version < '3'"  # on no machine
    for extra, lines in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        for line in lines:
            name, _, marker = line.partition(";")
            condition = f'extra == "{extra}"' if not marker else f'({marker}) and extra == "{extra}"'
            package["Requires-Dist"] = f"{name}; {condition}" if extra else line
    monkeypatch.setattr(metadata, "metadata", lambda name: package)
    assert {extra: [str(line) for line in lines] for extra, lines in pins.requirements().items()} == {
        extra: [str(line) for line in lines] for extra, lines in checkout.items()
    }
    assert list(checkout) == [
        "",
        "torch",
        "coreai",
        "coreml",
        "executorch",
        "litert",
        "litert-runtime",
        "onnx",
        "quantize",
        "signing",
    ]
    assert [line.name for line in checkout["onnx"]] == ["rich", "torch", "onnx", "onnxscript", "onnxruntime"]


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_full_or_missing_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def found() -> Finding:
        return next(finding for finding in host.host() if finding.name == "temporary files")

    assert found().status == "OK"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10, 9, 1))
    assert found().status == "FAIL"
    assert "TMPDIR" in found().mend
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    assert found().status == "FAIL"
    assert "FileNotFoundError" in found().detail


def test_what_a_probe_raises_is_one_line() -> None:
    def look() -> Any:
        raise RuntimeError("\n  first [line]\nsecond")

    assert list(examine("group", [Probe("name", look, "do this")])) == [
        Finding("group", "name", "FAIL", "RuntimeError: first [line]", "do this")
    ]


def test_a_toolchain_that_crashes_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = Finding("onnx", "float .onnx", "OK", "fine")
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho '{json.dumps(vars(first))}'\nkill -SEGV $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    found = check("onnx")
    assert found[0] == first
    assert found[1].status == "FAIL"
    assert "signal 11" in found[1].detail
    assert "float .onnx" in found[1].name
    assert "onnxruntime==" in found[1].mend


def test_a_toolchain_that_cannot_be_imported_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('undefined symbol: _ZN3c10')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    (found,) = check("onnx")
    assert found.status == "FAIL"
    assert found.detail == "ImportError: undefined symbol: _ZN3c10"


def test_exit_code_and_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Finding("onnx", "known thing", "known", "we go around [it]"),
        Finding("coreml", "coreml", "not installed", "x", "get it"),
    ]
    monkeypatch.setattr(command, "toolchains", lambda: rows)
    assert command.main([]) == 0
    out = capsys.readouterr().out
    assert "known thing" in out
    assert "[it]" in out
    assert "get it" in out
    rows.append(Finding("onnx", "bad thing", "FAIL", "wrong", "pip install it"))
    assert command.main([]) == 1
    assert "bad thing (FAIL): pip install it" in capsys.readouterr().out
    assert command.main(["--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert not result["passed"]
    assert result["findings"][-1]["mend"] == "pip install it"


def test_a_runtime_that_cannot_load_our_file_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from lavit_edge.doctor import onnx
    from lavit_edge.export import onnx as exporter

    save = exporter.to_onnx

    def unknown_opset(*arguments: Any) -> Any:
        model = save(*arguments)
        model.opset_import[0].version = 99
        return model

    monkeypatch.setattr(exporter, "to_onnx", unknown_opset)
    (found,) = examine("onnx", [probe for probe in onnx.PROBES if probe.name == "int8 .onnx and .ort"])
    assert found.status == "FAIL"
    assert "onnxruntime==" in found.mend


def test_a_runtime_with_other_numbers_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from lavit_edge.doctor import onnx, smallest

    real = smallest.open_artifact
    monkeypatch.setattr(smallest, "open_artifact", lambda path, threads: lambda x: 1.5 * real(path, threads)(x))
    (found,) = examine("onnx", [probe for probe in onnx.PROBES if probe.name == "int8 .onnx and .ort"])
    assert found.status == "FAIL"
    assert "6.0 dB, wanted 25" in found.detail
    assert found.mend == onnx.REPAIR


@pytest.mark.parametrize(
    ("errors", "status"),
    [({False: 0.5, True: 0.0}, "known"), ({False: 0.0, True: 0.0}, "OK"), ({False: 0.5, True: 0.5}, "FAIL")],
)
def test_softmax_is_a_failure_only_where_we_use_it(
    monkeypatch: pytest.MonkeyPatch, errors: dict[bool, float], status: str
) -> None:
    from lavit_edge.doctor import executorch

    monkeypatch.setattr(executorch, "error", lambda module, *inputs, repaired=True: errors[repaired])
    (found,) = examine("executorch", [probe for probe in executorch.PROBES if "softmax" in probe.name])
    assert found.status == status
    assert bool(found.mend) == (status == "FAIL")


def test_a_lock_and_a_missing_compiler_of_nncfs_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from lavit_edge.doctor import quantize

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert quantize.lock()[0] == "OK"
    (quantize.build_folder() / "lock").touch()
    (found, _, last) = examine("quantize", quantize.PROBES)
    assert found.status == "FAIL"
    assert str(tmp_path) in found.detail
    assert "delete" in found.mend
    assert last.status != "FAIL"  # it is not run: that would hang
    monkeypatch.setenv("PATH", str(tmp_path))
    assert quantize.compiler()[0] == "known"
    assert "ninja" in quantize.compiler()[1]


@pytest.mark.slow
def test_here_nothing_that_is_needed_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    code = command.main(["--json"])
    result = json.loads(capsys.readouterr().out)
    failed = [finding for finding in result["findings"] if finding["status"] == "FAIL"]
    assert failed == []
    assert code == 0
    status = {finding["name"]: finding["status"] for finding in result["findings"]}
    for name in ("int8 .pte", "int8 .onnx and .ort", "int8 .mlpackage", "calibration"):
        assert status[name] == "OK"
    assert status["4-D softmax beside a convolution"] in {"known", "OK"}
