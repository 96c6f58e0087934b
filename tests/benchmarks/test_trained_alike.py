"""Results that accumulate, one tiny training from the command line, and timm's nets as models of the package."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from entrants import TIMM, VARIANTS, TimmClassifier
from trained_alike import recipe_digest
from trained_results import Result, append, read_results, top1_by_model

from lavit_edge import create_model
from lavit_edge.errors import UserError
from lavit_edge.train.recipe import Recipe

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "trained_alike.py"
RESULT = Result("a", 0, 0.5, 100, 10, 20, 128, 60, "CPU", "0123456789ab", "abc")


def test_results_come_back_from_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.jsonl"
    results = [RESULT, dataclasses.replace(RESULT, seed=1, top1=0.7), dataclasses.replace(RESULT, model="b", top1=0.65)]
    assert read_results(file, Result) == []
    for result in results:
        append(file, result)
    assert read_results(file, Result) == results
    assert list(top1_by_model(results).items()) == [("b", [0.65]), ("a", [0.5, 0.7])]  # best mean first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "0"}, "line 2: seed must be of type int"),
        ({"top1": None}, "line 2: top1 must be of type float"),
        ({"note": "x"}, "line 2: unknown field 'note'"),
        ({"recipe": "another"}, "line 2 is of another recipe"),
    ],
)
def test_a_line_that_is_no_result_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append(file, RESULT)
    with file.open("a") as stream:
        stream.write(json.dumps({**dataclasses.asdict(RESULT), **change}) + "\n")
    with pytest.raises(UserError, match=message):
        read_results(file, Result)


def test_half_a_line_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    append(file, RESULT)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match="line 1 is not JSON"):
        read_results(file, Result)


def test_runs_share_all_but_model_and_seed() -> None:
    recipe = Recipe()
    assert recipe_digest(recipe) == recipe_digest(recipe.changed(["model=lavit_tiny", "seed=3"]))
    assert recipe_digest(recipe) != recipe_digest(recipe.changed(["lr=0.5"]))


@pytest.mark.slow
def test_trains_once_keeps_a_line_and_refuses_another_recipe(colours: Path, tmp_path: Path) -> None:
    def run(*settings: str, data: Path = colours, seed: int = 0) -> subprocess.CompletedProcess[str]:
        options = ["--models", "lavit_mobile_s", "--seeds", str(seed), "--data", str(data), "--workers", "0"]
        command = [
            sys.executable,
            SCRIPT,
            *options,
            "--results",
            "results.jsonl",
            "--set",
            "image_size=32",
            "batch_size=48",
            *settings,
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    first = run("epochs=1")
    assert first.returncode == 0, first.stderr
    (result,) = read_results(tmp_path / "results.jsonl", Result)
    metrics = json.loads((tmp_path / "runs/lavit_mobile_s-0/checkpoint/config.json").read_text())["metrics"]
    assert (result.top1, result.pictures, result.epochs, result.pixels) == (metrics["val_top1"], 12, 1, 32)
    deployed = create_model("lavit_mobile_s", num_classes=3, image_size=32).deploy()
    assert result.params == sum(parameter.numel() for parameter in deployed.parameters())

    again = run("epochs=1")
    assert (again.returncode, again.stdout) == (0, "lavit_mobile_s, seed 0: is in results.jsonl\n")
    other = run("epochs=2")
    assert (other.returncode, other.stderr) == (
        2,
        "error: results.jsonl holds runs of another recipe; choose another --results\n",
    )
    failing = run("epochs=1", data=tmp_path, seed=1)
    assert failing.returncode == 2
    assert failing.stderr.splitlines()[-1].startswith("error: not trained: lavit_mobile_s-1 (exit code 2)")
    assert read_results(tmp_path / "results.jsonl", Result) == [result]


def test_twins_differ_from_their_model_in_attention_alone() -> None:
    for name, (of, options) in VARIANTS.items():
        model, twin = (create_model(of, num_classes=10, image_size=64, **more) for more in ({}, options))
        paths, twin_paths = (set(net.state_dict()) for net in (model, twin))
        assert all("attention" in path for path in paths ^ twin_paths), name
        assert any(".theta." in path for path in paths - twin_paths), name


@pytest.mark.parametrize("name", TIMM.values())
def test_a_net_of_timm_is_a_model_of_the_package(name: str) -> None:
    torch.manual_seed(0)
    model, x = TimmClassifier(name, num_classes=10, image_size=64), torch.randn(4, 3, 64, 64)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    with torch.no_grad():
        model.train()(x)
        model.eval()
        features, maps = model.features(x)
        expected, deployed = model(x), model.deploy()
        assert expected.shape == (4, 10)
        assert maps == []
        torch.testing.assert_close(model.head(features), expected)
        torch.testing.assert_close(deployed(x), expected, rtol=1e-3, atol=1e-3)
        assert not [node for node in deployed.graph.nodes if "batch_norm" in str(node.target)]
