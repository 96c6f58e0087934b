"""The profile of tiny artifacts: which operators and blocks it names, and what adds up; never how long anything takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lavit_edge.benchmark.blocks import onnx_block
from lavit_edge.benchmark.floor import Floor
from lavit_edge.benchmark.profiling import Profile, Row
from lavit_edge.benchmark.timing import faster_half
from lavit_edge.checkpoint import load_checkpoint
from lavit_edge.cli import new_console
from lavit_edge.models.deployed import Deployed
from lavit_edge.profile import main, print_profile
from lavit_edge.verdict.read import read

ROW = {"name", "place", "calls", "ms", "share", "macs", "floor_ms", "gmacs", "gbytes"}


def test_onnx_weights_name_their_block_and_folded_ones_do_not() -> None:
    assert onnx_block(["val_3", "model.stages.1.blocks.0.ffn.expand.bias"]) == "stages.1.blocks.0.ffn"
    assert onnx_block(["val_3", "scale"]) is None


def test_the_faster_half_leaves_interruptions_out() -> None:
    assert faster_half([1.0, 50.0, 3.0, 60.0]) == 2.0
    assert faster_half([7.0]) == 7.0


@pytest.fixture(scope="module")
def profiles(bundle: Path) -> dict[str, dict]:
    """The JSON of the command, by suffix of the artifact."""
    import contextlib
    import io

    found = {}
    for suffix in (".pte", ".onnx", ".ort"):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            assert main([str(bundle / f"model{suffix}"), "--json"]) == 0
        found[suffix] = json.loads(out.getvalue())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pte", ".onnx", ".ort"])
def test_blocks_are_those_of_the_model(profiles: dict[str, dict], int8: Path, suffix: str) -> None:
    checkpoint = load_checkpoint(int8)
    model = Deployed(checkpoint.model, checkpoint.contract).model
    named = [row["name"] for row in profiles[suffix]["blocks"]]
    assert set(named) - {"model"} <= {path for path, _ in model.named_modules()}
    assert {"stages.0.embedding", "stages.2.blocks.1.attention", "stages.3.blocks.1.ffn", "head"} <= set(named)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pte", ".onnx", ".ort"])
def test_multiply_adds_are_the_verdicts_in_every_table(profiles: dict[str, dict], bundle: Path, suffix: str) -> None:
    found = profiles[suffix]
    macs = sum(op.macs for op in read(bundle / f"model{suffix}")[0].ops)
    assert found["macs"] == macs > 0
    for table in ("types", "blocks"):
        assert sum(row["macs"] for row in found[table]) == macs


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pte", ".onnx", ".ort"])
def test_json_has_every_table_and_limits_and_parts_are_the_sum_of_their_rows(profiles: dict[str, dict], suffix: str) -> None:
    found = profiles[suffix]
    assert found["artifact"] == f"model{suffix}"
    assert found["threads"] == 1
    assert found["precision"] == "int8"
    assert found["sentence"]
    assert all(rate > 0 for rate in found["floor"].values())
    for table in ("types", "blocks", "slowest"):
        assert all(set(row) == ROW for row in found[table])
    assert len(found["slowest"]) == 10
    for table in ("types", "blocks"):
        assert sum(row["ms"] for row in found[table]) == pytest.approx(found["parts_ms"])
        assert sum(row["share"] for row in found[table]) == pytest.approx(1)


@pytest.mark.slow
def test_the_float_layers_of_one_block_count_as_they_run(profiles: dict[str, dict], int8: Path) -> None:
    """Layers by place: as many int8 products with weights as the checkpoint has int8 layers."""
    from lavit_edge.quantize.program import stored_float_layers
    from lavit_edge.quantize.scheme import quantizable

    checkpoint = load_checkpoint(int8)
    model = Deployed(checkpoint.model, checkpoint.contract).model
    layers = quantizable(model, stored_float_layers(checkpoint, model))
    rows = profiles[".pte"]["types"]
    products = [row["calls"] for row in rows if row["place"] == "int8" and row["macs"]]
    assert sum(products) == len(layers)


@pytest.mark.slow
def test_a_pte_that_names_no_model_is_profiled_without_blocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from lavit_edge.benchmark.floor import program
    from lavit_edge.export.executorch import lower
    from lavit_edge.export.targets import ExecutorchOptions

    path = tmp_path / "foreign.pte"
    lowered = lower(program(torch.nn.Linear(8, 4), torch.zeros(2, 8)), ExecutorchOptions())
    path.write_bytes(lowered.to_executorch().buffer)
    assert main([str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["blocks"] == []
    assert "Blocks are not known" in found["notes"][0]
    assert found["macs"] == 2 * 8 * 4


@pytest.mark.parametrize("name", ["model.txt", "missing.onnx", "missing.pte"])
def test_what_is_no_artifact_is_one_line(tmp_path: Path, name: str) -> None:
    assert_refused(tmp_path / name, "no known kind" if name.endswith("txt") else "does not exist")


@pytest.mark.parametrize("suffix", [".pte", ".onnx", ".ort"])
def test_a_damaged_file_is_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"not a model" * 9)
    assert_refused(path, "damaged")


def test_core_ml_is_sent_to_xcode(tmp_path: Path) -> None:
    (tmp_path / "model.mlpackage").mkdir()
    assert_refused(tmp_path / "model.mlpackage", "Xcode")


@pytest.mark.parametrize("threads", ["0", "-1", "two", "1000"])
def test_threads_are_a_number(tmp_path: Path, threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "model.onnx"), "--threads", threads])
    assert stopped.value.code == 2
    assert "--threads" in capsys.readouterr().err


def assert_refused(path: Path, message: str) -> None:
    from lavit_edge.errors import UserError

    if path.suffix == ".txt":
        path.write_text("hello")
    with pytest.raises(UserError, match=message) as refused:
        main([str(path)])
    assert "\n" not in str(refused.value)


def test_eighty_columns_tell_all_operators_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """Names that differ in their last letters alone, and figures as long as they get."""
    names = [f"stages.2.blocks.0.attention.{part}.conv.QLinearConv" for part in ("query", "key", "value")]
    rows = [Row(name, "int8 kernels of XNNPACK", 999, 1234.567, 0.333, 10**9, 123.456, 123.4, None) for name in names]
    console = new_console()
    console.width = 80
    floor = Floor(60.0, 200.0, 9.0)
    print_profile(Profile("m.onnx", "r", "int8", 1, 1, 1, 1, 1, 1, 10**9, floor, rows, rows, rows, "Sentence.", []), console)
    tables = re.sub(r"[│┃\s]", "", capsys.readouterr().out)
    assert "…" not in tables
    assert tables.count("1234.567") == 9
    assert tables.count("123.456") == 9
