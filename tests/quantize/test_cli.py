"""``python -m lavit_edge.quantize`` from end to end, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from lavit_edge.checkpoint import CARD, CONFIG, INT8, WEIGHTS, load_checkpoint
from lavit_edge.contract import decision
from lavit_edge.data.folder import PictureFolder
from lavit_edge.data.outside import outside
from lavit_edge.errors import UserError
from lavit_edge.models.deployed import logits, to_input

pytest.importorskip("nncf")
from lavit_edge.quantize import fake_quantized
from lavit_edge.quantize.__main__ import main
from lavit_edge.quantize.evaluate import batches


def command(checkpoint, data, out, *more: str) -> list[str]:
    return ["--checkpoint", str(checkpoint), "--data", str(data), "--out", str(out), "--calibration-pictures", "10", *more]


def test_quantise_train_and_save(fp32, data, tmp_path, capsys):
    out = tmp_path / "out"
    more = ["--batch-size", "10", "--epochs", "2", "--max-steps", "3", "--limit-val", "20", "--json"]
    assert main(command(fp32, data, out, *more)) == 0
    result = json.loads(capsys.readouterr().out)  # nothing but JSON on standard output
    assert set(result["metrics"]) == {"fp32", "ptq", "qat"}
    assert result["val_pictures"] == 20
    assert result["metrics"]["fp32"]["sqnr_db"] is None
    assert result["metrics"]["ptq"]["sqnr_db"] > 15
    ptq, qat = result["metrics"]["ptq"], result["metrics"]["qat"]
    assert abs(qat["top1"] - ptq["top1"]) * 20 < 4.5, "too few pictures to tell, so SQNR decides"
    assert result["kept"] == ("qat" if qat["sqnr_db"] > ptq["sqnr_db"] else "ptq")
    assert len(result["calibration"]) == 10
    for entry in result["calibration"]:
        assert hashlib.sha256((data / entry["path"]).read_bytes()).hexdigest() == entry["sha256"]
    assert result["training"]["max_steps"] == 3
    assert {"nncf", "torch"} <= set(result["versions"])

    assert sorted(file.name for file in out.iterdir()) == sorted([CARD, CONFIG, INT8, WEIGHTS, "int8.pt2"])
    config = load_checkpoint(out).config
    for file in (INT8, WEIGHTS, "int8.pt2"):
        assert config["sha256"][file] == hashlib.sha256((out / file).read_bytes()).hexdigest()
    assert config["quantization"] == {name: value for name, value in result.items() if name != "out"}
    assert config["training"] == {"steps": 200}, "what was known of the fp32 checkpoint stays"
    assert load_file(out / WEIGHTS).keys() == load_file(fp32 / WEIGHTS).keys()
    card = (out / CARD).read_text()
    assert card.startswith("# Gratings")
    assert f"Kept: **{result['kept'].upper()}**" in card
    assert (out / INT8).stat().st_size < 0.4 * (out / WEIGHTS).stat().st_size

    with pytest.raises(UserError, match="already exists"):
        main(command(fp32, data, out))


def test_the_contract_gets_the_threshold_of_the_form_that_is_kept(fp32, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(decision, "FEWEST", 30)  # the val pictures of the gratings
    out = tmp_path / "out"
    assert main(command(fp32, data, out, "--epochs", "0", "--answers-right", "90")) == 0
    checkpoint = load_checkpoint(out)
    contract, val = checkpoint.contract, PictureFolder(data, "val")
    found = decision.Decision(**checkpoint.config["quantization"]["decision"])
    fake = fake_quantized(checkpoint)
    answers, targets = logits(fake, batches(val, contract, 30))
    unknown = torch.cat([fake(to_input(picture[None])) for picture in outside(contract)]).detach()
    assert found == decision.fit_decision(answers.numpy(), targets.numpy(), contract, 0.9, unknown.numpy())
    assert (contract.temperature, contract.threshold) == (found.temperature, found.threshold)
    assert contract.threshold > 0
    for text in ((out / CARD).read_text(), " ".join(capsys.readouterr().out.split())):
        assert found.sentence() in text


def test_the_table(int8, data, tmp_path, capsys):
    assert main(command(int8, data, tmp_path / "again", "--epochs", "0")) == 0  # a quantised checkpoint is quantised anew
    output = capsys.readouterr().out
    assert "fp32" in output
    assert "int8, PTQ" in output
    assert "QAT" not in output
    assert (tmp_path / "again" / CARD).read_text().count("## int8") == 1


def test_layers_named_on_the_command_line_stay_float(fp32, data, tmp_path, capsys):
    more = ["--epochs", "0", "--limit-val", "10", "--json", "--float-layers", "*.query.conv", "stages.1.blocks.?.ffn.*"]
    assert main(command(fp32, data, tmp_path / "out", *more)) == 0
    found = json.loads(capsys.readouterr().out)["float_layers"]
    tensors = load_file(tmp_path / "out" / INT8)
    assert tensors["stages.2.blocks.0.attention.query.conv.weight"].dtype == torch.float32
    assert {"head", "stages.3.blocks.0.attention.query.conv", "stages.1.blocks.0.ffn.expand.conv"} <= set(found)
    assert not {"stages.0.blocks.0.ffn.expand.conv", "stages.3.blocks.0.attention.key.conv"} & set(found)


def test_a_least_sqnr_keeps_layers_in_float(fp32, data, tmp_path, capsys):
    more = ["--epochs", "0", "--limit-val", "10", "--json", "--judging-pictures", "20", "--max-drop", "100"]
    assert main(command(fp32, data, tmp_path / "drop", *more)) == 0
    plain = json.loads(capsys.readouterr().out)["sensitivity"]
    assert plain["kept"] == []
    wanted = plain["metrics"]["ptq"]["sqnr_db"] + 2
    assert main(command(fp32, data, tmp_path / "least", *more, "--min-sqnr", str(wanted))) == 0
    found = json.loads(capsys.readouterr().out)["sensitivity"]
    assert found["kept"]
    assert found["metrics"]["ptq"]["sqnr_db"] >= wanted


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--calibration-pictures", "81"], "80 pictures, calibration takes 81"),
        (["--batch-size", "81"], "fewer than one batch"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--epochs", "-1"], "--epochs must not be negative"),
        (["--range-lr", "0"], "--range-lr must be positive"),
        (["--freeze-ranges", "1.5"], "a share of the training"),
        (["--float-layers", "*.atention.query"], r"no such layer; one is called stages\.\d"),
        (["--data", "nowhere"], "no such folder"),
        (["--checkpoint", "nowhere"], "not a checkpoint"),
    ],
)
def test_bad_input_is_refused(more, message, fp32, data, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        main(command(fp32, data, tmp_path / "out", *more))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_when_it_fails_midway(fp32, data, tmp_path, monkeypatch):
    from lavit_edge.quantize import run as module

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "int8_program", fail)
    with pytest.raises(KeyboardInterrupt):
        main(command(fp32, data, tmp_path / "out", "--epochs", "0"))
    assert not list(tmp_path.iterdir())


def test_missing_cuda_tools_are_named(fp32, data, tmp_path, monkeypatch):
    import nncf

    from lavit_edge.quantize import qat

    def fail(*_, **__):
        raise nncf.InstallationError("no nvcc")

    monkeypatch.setattr(qat, "fine_tune", fail)
    with pytest.raises(UserError, match="nvcc"):
        main(command(fp32, data, tmp_path / "out", "--batch-size", "10"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_lock_that_does_not_go_away_is_one_line(fp32, data, tmp_path):
    folder = tmp_path / "kernels" / "nncf" / "quantized_functions_cpu" / torch.__version__
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    os.utime(folder / "lock", (time.time() + 3600,) * 2)  # or a slow start makes an abandoned lock of it
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path / "kernels"), "NNCF_EXTENSION_LOAD_TIMEOUT": "1"}
    arguments = [sys.executable, "-m", "lavit_edge.quantize", *command(fp32, data, tmp_path / "out", "--epochs", "0")]
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 2, stderr
    # behind it NNCF's thread pool, still waiting, may complain that Python ends
    (error,) = (line for line in stderr.splitlines() if line.startswith("error: "))
    assert "lavit_edge.doctor" in error
    assert not (tmp_path / "out").exists()


def test_a_train_folder_alone_is_not_enough(fp32, data, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(data / "train")
    with pytest.raises(UserError, match="val: no such folder"):
        main(command(fp32, tmp_path / "data", tmp_path / "out"))
