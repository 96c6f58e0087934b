"""The verbs in Python: callable whoever was imported first, silent, typed, and with the commands' options."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import lavit_edge
from lavit_edge import (
    BenchmarkConfig,
    EvaluateConfig,
    ExportConfig,
    Gates,
    PredictConfig,
    QuantizeConfig,
    TrainConfig,
    UserError,
    VerifyConfig,
)
from lavit_edge.cli import config_from
from lavit_edge.export.targets import ExecutorchOptions

ROOT = Path(__file__).parents[1]
STUB = ROOT / "lavit_edge" / "__init__.pyi"
# a module of each verb's package that somebody may import before the verb is asked for, and a call that it refuses
VERBS = {
    "adapt": ("adapt.weights", "'nowhere', None"),
    "benchmark": ("benchmark.devices", "'nowhere.onnx'"),
    "compare": ("compare", "['nowhere']"),
    "evaluate": ("evaluate", "'nowhere', 'data'"),
    "export": ("export.targets", "'nowhere', 'out'"),
    "predict": ("predict", "'nowhere', 'nowhere.jpg'"),
    "quantize": ("quantize.program", "'nowhere', 'data', 'out'"),
    "selftest": ("selftest", "'nowhere.onnx'"),
    "train": ("train.recipe", "'nowhere', 'out'"),
    "verify": ("verify", "'nowhere'"),
}
CALL = """
try:
    print({verb!r}, lavit_edge.{verb}({arguments}))
except lavit_edge.UserError as error:
    print({verb!r}, "nowhere" in str(error), lavit_edge.{verb} is sys.modules["lavit_edge.{verb}"])
"""


@pytest.mark.parametrize("submodules", ["", "before", "after"])
def test_a_verb_is_callable_whoever_was_imported_first(submodules: str, tmp_path: Path) -> None:
    others = [f"import lavit_edge.{module}" for module, _ in VERBS.values()]
    calls = [CALL.format(verb=verb, arguments=arguments) for verb, (_, arguments) in VERBS.items()]
    lines = ["import sys, lavit_edge", *(others if submodules == "before" else []), *calls]
    if submodules == "after":
        lines += [*others, *calls]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    expected = [f"{verb} True True" for verb in VERBS]
    assert done.stdout.splitlines() == (2 * expected if submodules == "after" else expected), done.stderr
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_the_stub_has_the_same_names_from_the_same_places() -> None:
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    homes = {alias.asname: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert sorted(str(name) for name in homes) == lavit_edge.__all__
    assert set(VERBS) <= set(lavit_edge.__all__)
    for name, home in homes.items():
        found = getattr(lavit_edge, str(name))
        if name in VERBS:
            assert found.home == home
        else:
            assert getattr(import_module(str(home)), str(name)) is found


@pytest.mark.parametrize(
    ("command", "config", "required"),
    [
        ("lavit_edge.quantize.__main__", QuantizeConfig, ["--checkpoint", "c", "--data", "d", "--out", "o"]),
        ("lavit_edge.train.__main__", TrainConfig, ["--data", "d", "--out", "o"]),
        ("lavit_edge.export.__main__", Gates, []),
        ("lavit_edge.verify", Gates, ["bundle"]),
        ("lavit_edge.predict", PredictConfig, ["model", "picture"]),
        ("lavit_edge.evaluate", EvaluateConfig, ["model", "--data", "d"]),
    ],
)
def test_a_command_without_options_asks_for_the_default_config(command: str, config: type, required: list[str]) -> None:
    arguments = import_module(command).parser().parse_args(required)
    assert config_from(config, arguments) == config()


def test_options_become_fields_of_their_types() -> None:
    parser = import_module("lavit_edge.quantize.__main__").parser()
    given = ["--checkpoint", "c", "--data", "d", "--out", "o", "--max-drop", "1", "--float-layers", "a", "b", "--no-teacher"]
    config = config_from(QuantizeConfig, parser.parse_args(given))
    assert config == QuantizeConfig(max_drop=1.0, float_layers=("a", "b"), no_teacher=True)
    assert hash(config), "frozen to the bottom"
    assert config.max_steps is None
    steps = config_from(QuantizeConfig, parser.parse_args([*given, "--max-steps", "7"])).max_steps
    assert (steps, type(steps)) == (7, int)


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (QuantizeConfig, {"batch_size": 0}, "--batch-size must be at least 1"),
        (QuantizeConfig, {"device": "gpu"}, "--device must be cpu or cuda, not 'gpu'"),
        (QuantizeConfig, {"min_sqnr": 40.0}, "goes with --max-drop"),
        (TrainConfig, {"workers": -1}, "--workers must be at least 0"),
        (TrainConfig, {"precision": "fp16"}, "--precision must be auto or bf16 or fp32"),
        (VerifyConfig, {"pictures": 0}, "--pictures must be at least 1"),
        (EvaluateConfig, {"pictures": 0}, "--pictures must be at least 1"),
        (EvaluateConfig, {"worst": -1}, "--worst must be at least 0"),
        (PredictConfig, {"top": 0}, "--top must be at least 1"),
        (ExportConfig, {"targets": ("onxx",)}, "did you mean 'onnx'"),
        (ExportConfig, {"targets": ()}, "no target"),
        (
            ExportConfig,
            {"targets": ("onnx",), "options": (ExecutorchOptions("coreml"),)},
            "--backend belongs to target executorch",
        ),
        (ExportConfig, {"tolerance_steps": 0.0}, "--tolerance-steps must be positive"),
        (BenchmarkConfig, {"threads": (0,)}, "threads must be numbers from 1"),
    ],
)
def test_a_value_out_of_range_is_refused_when_the_config_is_made(config: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        config(**values)
    assert "\n" not in str(caught.value)


def test_training_says_nothing_unless_asked(colours: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = lavit_edge.Recipe().changed(["image_size=32", "epochs=1", "batch_size=16", "warmup_epochs=0"])
    trained = lavit_edge.train(colours, tmp_path / "run", recipe, TrainConfig(workers=0, device="cpu", precision="fp32"))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    metrics = lavit_edge.load_checkpoint(trained.checkpoint).config["metrics"]
    assert (round(trained.top1, 5), trained.pictures) == (metrics["val_top1"], 12)


@pytest.mark.slow
def test_the_example_of_the_page_runs(fp32: Path, data: Path, tmp_path: Path) -> None:
    """As a script of its own, on the tiny model; what it prints is all that is printed."""
    pytest.importorskip("nncf")
    pytest.importorskip("onnxruntime")
    shutil.copytree(fp32, tmp_path / "flowers-fp32")
    shutil.copytree(data, tmp_path / "flowers")
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    done = subprocess.run([sys.executable, "example.py"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    layers, gates, *selftests, first, second = done.stdout.splitlines()
    assert re.fullmatch(r"float layers: [1-9]\d*", layers)
    assert re.fullmatch(r"gates passed: (True|False) (True|False)", gates)  # the real gates are for real models
    assert selftests == ["model.onnx self-test passed: True", "model.ort self-test passed: True"]
    assert first == "model.onnx baseline"
    assert re.fullmatch(r"model\.ort (faster|slower|inconclusive)", second)
    assert {path.name for path in (tmp_path / "flowers-bundle").iterdir()} >= {"model.onnx", "model.ort", "parity.json"}
    assert len(list((tmp_path / "flowers-reports").iterdir())) == 6, "two sides, three times"
