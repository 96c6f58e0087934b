"""lavit_bench does on a device what Python does here: the same self-test, the same picture, the same report, to the byte."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lavit_edge
from lavit_edge.artifact.payload import Golden, Payload, read_payload
from lavit_edge.artifact.runners import read_entries
from lavit_edge.artifact.seal import FIELD, check_seal, seal
from lavit_edge.benchmark.report import canonical, edited, latency, read_report
from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import to_input
from lavit_edge.selftest import selftest

pytestmark = [pytest.mark.slow, pytest.mark.device]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def artifact(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``.pte`` of a tiny fp32 model with its payload."""
    from lavit_edge.checkpoint import load_checkpoint
    from lavit_edge.export.executorch import export
    from lavit_edge.export.golden import make_payload
    from lavit_edge.export.targets import ExecutorchOptions
    from lavit_edge.quantize.program import float_program

    checkpoint = load_checkpoint(tiny_checkpoint)
    program = float_program(checkpoint)
    provenance = {"checkpoint": {"name": "tiny"}, "precision": "float32"}
    path = tmp_path_factory.mktemp("native") / "model.pte"
    export(program, make_payload(program, checkpoint.contract, provenance, 0.5), path, ExecutorchOptions())
    return path


def payload_of(artifact: Path) -> Payload:
    return read_payload(read_entries(artifact))


def planted(artifact: Path, path: Path, change: Callable[[Golden], tuple[np.ndarray, np.ndarray]]) -> Path:
    """A copy whose second golden picture has one tensor changed, with a digest that fits."""
    old, new = change(payload_of(artifact).golden[1])
    content = artifact.read_bytes()
    assert content.count(old.tobytes()) == 1
    path.write_bytes(content.replace(old.tobytes(), new.tobytes()))
    seal(path)
    return path


def wrong_logits(golden: Golden) -> tuple[np.ndarray, np.ndarray]:
    changed = golden.logits.copy()
    changed[3] += 1
    return golden.logits, changed


def wrong_sample(golden: Golden) -> tuple[np.ndarray, np.ndarray]:
    changed = golden.sample.copy()
    changed[4, 5, 2] ^= 128
    return golden.sample, changed


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """What a run that ended with ``code`` had to say on stderr: exactly one line."""
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_the_report_is_sound_and_python_reads_what_was_written(run: Run, artifact: Path, tmp_path: Path) -> None:
    name = 'quoted "name" \\ / \b\f\n\r\t\x01\x1f\x7f café 日本 \u2028 🙂'
    facts = {
        "runtime": {"delegated_macs_permille": 997, "graph_breaks": 2},
        "artifact": {"top1_permille": 894},
        "device": {"name": name, "kind": "board"},
    }
    (tmp_path / "facts.json").write_text(json.dumps(facts))  # with \u escapes; the report has the letters
    out = tmp_path / "report.json"
    words = ["--threads", "2", "--seconds", "0.3", "--facts", tmp_path / "facts.json", "--emulator", "qemu é"]
    done = run("--artifact", artifact, "--out", out, *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert sorted(os.listdir(tmp_path)) == ["facts.json", "report.json"]
    report = read_report(out)
    assert not edited(report)
    payload = payload_of(artifact)
    content = artifact.read_bytes()
    assert report["artifact"] == {
        "file": "model.pte",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "content_sha256": check_seal(artifact),
        "contract_sha256": payload.contract.sha256,
        "model": "tiny",
        "precision": "float32",
        "image_size": 64,
        "top1_permille": 894,
    }
    assert report["harness"] == {"name": "lavit_bench", "version": lavit_edge.__version__, "build": "release"}
    assert report["runtime"] == {"name": "ExecuTorch", "version": "1.5.1", "backend": "XNNPACK", **facts["runtime"]}
    assert report["device"]["name"] == name
    assert (report["device"]["kind"], report["device"]["arch"], report["device"]["os"]) == ("board", "x86_64", "Linux")
    assert (report["device"]["emulated"], report["device"]["emulator"]) == (True, "qemu é")
    assert report["device"]["cores"] == os.cpu_count()
    assert report["settings"]["threads"] == 2
    assert report["settings"]["least_duration_ns"] == 300_000_000
    assert report["least_duration_met"]
    assert report["latency"]["runs"] >= 50
    assert report["latency"]["duration_ns"] >= 300_000_000
    assert report["settings"]["warmup"]["runs"] >= 3
    assert report["settings"]["warmup"]["duration_ns"] >= 1_000_000_000
    assert report["self_test"]["passed"]
    assert (report["self_test"]["pictures"], report["self_test"]["same_top1"]) == (4, 4)
    assert report["self_test"]["worst_millisteps"] <= 500
    assert report["preprocessing"]["runs"] == 20
    assert report["memory"]["peak_bytes"] > 1_000_000


def test_its_self_test_finds_what_pythons_finds(run: Run, artifact: Path, tmp_path: Path) -> None:
    for change, check in ((wrong_logits, "logits"), (wrong_sample, "preprocessing")):
        path = planted(artifact, tmp_path / "model.pte", change)
        (found,) = [check.name + ": " + check.found for check in selftest(path).checks if not check.passed]
        assert check in found
        out = tmp_path / f"{check}.json"
        assert f"self-test failed: {found}" in one_line(run("--artifact", path, "--out", out), 1)
        report = read_report(out)
        assert not edited(report)
        assert report["latency"] is None
        assert report["preprocessing"] is None
        assert report["self_test"]["detail"] == found
        assert not report["self_test"]["passed"]
        assert not report["self_test"]["forced"]


def test_force_measures_all_the_same(run: Run, artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    path = planted(artifact, tmp_path / "model.pte", wrong_logits)
    assert run("--artifact", path, "--out", out, "--seconds", "0", "--force").returncode == 0
    report = read_report(out)
    assert report["latency"]["runs"] == 50
    assert report["self_test"]["forced"]
    assert not report["self_test"]["passed"]
    assert run("--artifact", artifact, "--out", out, "--seconds", "0", "--force").returncode == 0
    assert not read_report(out)["self_test"]["forced"]  # it passed: nothing had to be forced


def test_an_artifact_without_digest_is_measured_only_by_force(run: Run, artifact: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "model.pte", tmp_path / "report.json"
    path.write_bytes(FIELD.sub(lambda match: b"x" * len(match[0]), artifact.read_bytes()))
    assert "has no digest" in one_line(run("--artifact", path, "--out", out), 2)
    assert not out.exists()
    assert run("--artifact", path, "--out", out, "--seconds", "0", "--force").returncode == 0
    report = read_report(out)
    assert report["self_test"]["forced"]
    assert "no digest" in report["self_test"]["detail"]
    assert "artifact.content_sha256" in report["lacks"]


def test_a_model_that_is_not_ours_is_measured_by_force(run: Run, tmp_path: Path) -> None:
    import torch
    from executorch.exir import to_edge_transform_and_lower

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    program = torch.export.export(model, (torch.zeros(1, 3, 32, 32),))
    path, out = tmp_path / "other.pte", tmp_path / "report.json"
    path.write_bytes(to_edge_transform_and_lower(program).to_executorch().buffer)
    done = run("--artifact", path, "--out", out, "--seconds", "0", "--force")
    assert done.returncode == 0, done.stderr
    report = read_report(out)
    assert (report["artifact"]["image_size"], report["artifact"]["model"], report["runtime"]["backend"]) == (32, None, "CPU")
    assert {"artifact.contract_sha256", "artifact.precision", "preprocessing"} < set(report["lacks"])
    assert "'contract' is missing" in report["self_test"]["detail"]


def test_a_changed_byte_never_reaches_the_runtime(run: Run, artifact: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "model.pte", tmp_path / "report.json"
    whole = artifact.read_bytes()
    for index in (0, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 4]) + whole[index + 1 :])
        for words in ((), ("--force",)):
            assert "is not what was exported" in one_line(run("--artifact", path, "--out", out, *words), 2)
            assert not out.exists()


def test_damage_under_a_digest_that_fits_ends_in_one_line(run: Run, artifact: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path, out = tmp_path / "model.pte", tmp_path / "outcome.json"
    whole, codes = artifact.read_bytes(), set()
    for _ in range(20):
        content = bytearray(whole)
        for index in rng.integers(0, min(len(whole), 30_000), 8):
            content[index] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        seal(path)
        done = run("--artifact", path, "--out", out, "--self-test-only")
        codes.add(done.returncode)
        if done.returncode:
            one_line(done, done.returncode)
    assert codes <= {0, 1, 2}
    assert 2 in codes


def test_self_test_only(run: Run, artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "outcome.json"
    assert run("--artifact", artifact, "--out", out, "--self-test-only").returncode == 0
    assert json.loads(out.read_text())["passed"]
    path = planted(artifact, tmp_path / "model.pte", wrong_logits)
    one_line(run("--artifact", path, "--out", out, "--self-test-only"), 1)
    assert "logits" in json.loads(out.read_text())["detail"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--artifact", "MISSING.pte"], "does not exist"),
        (["--artifact", "."], "is not a .pte"),
        (["--artifact", "GARBAGE.pte", "--force"], "damaged or not a .pte"),
        (["--artifact", "MODEL", "--out", "no/folder/report.json"], "cannot be written"),
        (["--artifact", "MODEL", "--speed", "3"], "unknown option '--speed'"),
        (["--artifact", "MODEL", "--out", "report.json", "--threads"], "--threads needs a value"),
        (["--artifact", "MODEL", "--threads", "0"], "--threads must be a number from 1"),
        (["--artifact", "MODEL", "--threads", "1.5"], "whole number"),
        (["--artifact", "MODEL", "--seconds", "nan"], "--seconds must be a number"),
        (["--artifact", "MODEL", "--facts", "GARBAGE.pte"], "is not JSON"),
        (["--artifact", "MODEL", "--facts", "FACTS", '{"device": {"serial": 1}}'], "unknown fact 'device.serial'"),
        (["--artifact", "MODEL", "--facts", "FACTS", '{"device.name": "x"}'], "unknown fact 'device.name'"),
        (["--artifact", "MODEL", "--facts", "FACTS", '{"device": {"kind": "toaster"}}'], "device.kind is none that there is"),
        (["--artifact", "MODEL", "--facts", "FACTS", '{"device": {"name": ""}}'], "device.name is none that there is"),
        (
            ["--artifact", "MODEL", "--facts", "FACTS", '{"artifact": {"top1_permille": 1001}}'],
            "artifact.top1_permille is none that there is: 1001",
        ),
        ([], "--artifact and --out are needed"),
    ],
)
def test_a_users_mistake_is_one_line(words: list[str], message: str, run: Run, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "GARBAGE.pte").write_bytes(b"\x00\xff garbage" * 100)
    if "FACTS" in words:
        (tmp_path / "FACTS").write_text(words[-1])
        words = words[:-1]
    known = {"MODEL": str(artifact)} | {name: str(tmp_path / name) for name in ("MISSING.pte", "GARBAGE.pte", "FACTS")}
    words = [known.get(word, word) for word in words]
    if words and "--out" not in words:
        words += ["--out", str(tmp_path / "report.json")]
    assert message in one_line(run(*words), 2)
    assert not (tmp_path / "report.json").exists()


SIZES = [(640, 480), (480, 640), (97, 61), (33, 200), (1, 1), (2, 1), (64, 64), (1999, 1503), (700, 31), (63, 65)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_preprocessing_is_pils(resize: Any, interpolation: Any, run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for index, (width, height) in enumerate(SIZES):
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        edges = np.where(noise > 127, 255, 0).astype(np.uint8)  # overshoots, where bicubic has to be clipped
        size = (32, 64, 160, 224)[index % 4]
        fraction = (1.0, 0.875, 0.9)[index % 3]
        contract = InputContract(size, ("a",), resize, interpolation, fraction)
        (tmp_path / "contract.json").write_text(contract.to_json())
        for picture in (noise, edges):
            (tmp_path / "in.rgb").write_bytes(picture.tobytes())
            words = [tmp_path / "contract.json", tmp_path / "in.rgb", str(width), str(height), tmp_path / "out.rgb"]
            done = run("--preprocess", *words)
            assert done.returncode == 0, done.stderr
            made = np.frombuffer((tmp_path / "out.rgb").read_bytes(), np.uint8).reshape(size, size, 3)
            expected = to_input(Image.fromarray(picture), contract)
            assert np.abs(made.astype(int) - expected).max() <= 1, (width, height, size)


def test_times_are_summarised_as_in_python(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for count, scale in ((1, 10**6), (7, 10**6), (50, 4 * 10**9), (20_000, 10**7), (20_001, 10**7)):
        samples = [int(value) for value in rng.integers(1, scale, count)]
        starts = np.cumsum([12_345, *samples[:-1]]).tolist()
        (tmp_path / "times.json").write_text(json.dumps({"samples_ns": samples, "starts_ns": starts}))
        assert run("--summarise", tmp_path / "times.json").stdout.encode() == canonical(latency(samples, starts))
