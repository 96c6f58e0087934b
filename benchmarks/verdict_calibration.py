"""Does the verdict hold? Predicted against measured int8/float on this machine, for models where int8 wins and where it loses.

    taskset -c 1 python benchmarks/verdict_calibration.py --work DIR

Artifacts are made once, in --work, by the package's own path, with random weights, which change no latency. Each int8 artifact is
timed against its float one in turns, on one thread. "Side of 1" is right when predicted and measured ratio both say faster,
or both slower; the verdict's words "about equal" are right when the measured ratio is within 10 % of 1.
Needs lavit-edge[all].
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from lavit_edge.artifact.runners import open_runtime, to_tensor
from lavit_edge.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lavit_edge.cli import run_command
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import free_pictures
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import find_target
from lavit_edge.models import create_model
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.calibrate import calibrate, int8_form
from lavit_edge.quantize.program import float_program, int8_program
from lavit_edge.quantize.scheme import default_float_layers, quantizable, quantizable_additions
from lavit_edge.toolchain import quiet
from lavit_edge.verdict.judge import judge
from lavit_edge.verdict.read import read

DEVICE = "x86-vnni"
THIN: dict[str, Any] = dict(dims=(16, 32, 64, 64), heads=(0, 0, 2, 2), depths=(1, 1, 2, 2))
# the only layers that are int8, by the end of their path
ISLANDS = {"value": "attention.value.conv", "depthwise": "mixer.conv", "project": "attention.project"}


@dataclass(frozen=True)
class Case:
    """
    Attributes:
        name: of the table.
        int8, float32: artifacts of one runtime.
    """

    name: str
    int8: Path
    float32: Path


class Separable(nn.Module):
    """A small MobileNet: a stem, then depthwise 3x3 and 1x1 convolutions with ReLU."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128, 128, 256, 256, 512, 512)
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, 2, 1), nn.ReLU()]
        for index, (a, b) in enumerate(itertools.pairwise(widths)):
            layers += [nn.Conv2d(a, a, 3, 1 + index % 2, 1, groups=a), nn.ReLU(), nn.Conv2d(a, b, 1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def checkpoint(name: str, size: int, folder: Path, islands: str, **options: Any) -> Checkpoint:
    """A checkpoint of random weights with its int8 form, in which only layers on ``islands`` are int8, if that names any."""
    if not folder.exists():
        torch.manual_seed(0)
        model = create_model(name, num_classes=10, image_size=size, **options).eval()
        contract = InputContract(size, tuple(f"class {index}" for index in range(10)))
        pictures = [torch.from_numpy(to_tensor(p)) for p, _ in free_pictures(contract).spread(8).inputs(contract)]
        deployed = Deployed(model, contract).eval()
        float_layers = default_float_layers(deployed.model)
        if islands:
            layers = [*quantizable(deployed.model, ()), *quantizable_additions(deployed.model, ())]
            float_layers |= {path for path in layers if not path.endswith(ISLANDS[islands])}
        with quiet(), contextlib.redirect_stdout(io.StringIO()):  # NNCF draws its bars on stdout
            int8 = int8_form(calibrate(deployed, pictures, float_layers))
        save_checkpoint(
            folder, model.state_dict(), model={"name": name, "options": options}, contract=contract, card="", int8=int8,
            facts={"quantization": {"float_layers": sorted(float_layers)}},
        )  # fmt: skip
    return load_checkpoint(folder)


def lavit(work: Path, name: str, size: int, islands: str = "", **options: Any) -> list[Case]:
    """The ``.pte`` and the ``.onnx`` of a model at one size."""
    title = f"{name}-{size}" + (f"-{islands}" if islands else "") + ("-thin" if options else "")
    cases = []
    for suffix, target in ((".pte", "executorch"), (".onnx", "onnx")):
        paths = {precision: work / f"{title}-{precision}{suffix}" for precision in ("int8", "float")}
        for precision, path in paths.items():
            if not path.exists():
                stored = checkpoint(name, size, work / f"{title}-checkpoint", islands, **options)
                program = int8_program(stored) if precision == "int8" else float_program(stored)
                find_target(target).export(program, make_payload(program, stored.contract, {}, 8.0), path)
        cases.append(Case(f"{title} {suffix}", paths["int8"], paths["float"]))
    return cases


def ort_quantised(work: Path, source: Path, kind: str) -> Case:
    """A float ``.onnx`` quantised by ONNX Runtime's own tool."""
    from onnxruntime import quantization as q

    path = work / f"{source.stem}-{kind}.onnx"
    if not path.exists():
        size = int(source.stem.split("-")[1])

        class Reader(q.CalibrationDataReader):
            """Four pictures of noise."""

            def __init__(self) -> None:
                rng = np.random.default_rng(0)
                self.rows = iter([{"image": rng.uniform(0, 255, (1, 3, size, size)).astype(np.float32)} for _ in range(4)])

            def get_next(self) -> dict[str, np.ndarray] | None:
                return next(self.rows, None)

        if kind == "dynamic":
            q.quantize_dynamic(source, path, weight_type=q.QuantType.QInt8)
        else:
            types = dict(activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8)
            signed = dict(activation_type=q.QuantType.QInt8, weight_type=q.QuantType.QInt8)
            form = q.QuantFormat.QOperator if kind == "signed" else q.QuantFormat.QDQ
            q.quantize_static(source, path, Reader(), quant_format=form, **(signed if kind == "signed" else types))
    return Case(f"{path.stem} .onnx", path, source)


def separable(work: Path, size: int) -> Path:
    """The float ``.onnx`` of :class:`Separable`."""
    path = work / f"separable-{size}-float.onnx"
    if not path.exists():
        torch.manual_seed(0)
        with quiet():
            exported = torch.onnx.export(
                Separable().eval(), (torch.rand(1, 3, size, size),), dynamo=True, opset_version=20, verbose=False,
                input_names=["image"], output_names=["logits"],
            )  # fmt: skip
        assert exported is not None
        exported.save(str(path))
    return path


def cases(work: Path) -> list[Case]:
    """All pairs: few int8 layers between float ones; LaViT at several sizes; made for another CPU; by ONNX Runtime's tool."""
    made = lavit(work, "lavit_mobile_s", 64, **THIN)
    for islands in ("value", "depthwise"):
        made += lavit(work, "lavit_mobile_s", 96, islands)
    for name, size in (("lavit_mobile_s", 96), ("lavit_mobile_s", 224), ("lavit_tiny", 160), ("lavit_small", 160)):
        made += lavit(work, name, size)
    mobile = next(case for case in made if case.name == "lavit_mobile_s-96 .onnx")
    made += [ort_quantised(work, mobile.float32, kind) for kind in ("everything", "dynamic", "signed")]
    made += [ort_quantised(work, separable(work, 160), kind) for kind in ("everything", "signed")]
    # those above were looked at while the model of costs was made; these were added when it was done
    made += lavit(work, "lavit_tiny", 96) + lavit(work, "lavit_tiny", 96, "project")
    tiny = next(case for case in made if case.name == "lavit_tiny-96 .onnx")
    made += [ort_quantised(work, tiny.float32, kind) for kind in ("everything", "dynamic", "signed")]
    made.append(ort_quantised(work, separable(work, 96), "everything"))
    return made


def measure(case: Case, seconds: float) -> tuple[float, float, float]:
    """Ratio of the medians, ratio of the minima, and milliseconds of the fastest float call; int8 and float in turns.

    Processor time is what is measured; on one thread that is the latency, without the turns of other processes.
    """
    size = int(case.float32.stem.split("-")[1])
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, size, size)).astype(np.float32)
    runs = [open_runtime(case.int8, 1), open_runtime(case.float32, 1)]
    times: list[list[float]] = [[], []]
    end = time.process_time() + seconds
    while time.process_time() < end or len(times[0]) < 9:
        for run, taken in zip(runs, times, strict=True):
            run(picture)
            for _ in range(3):
                start = time.process_time()
                run(picture)
                taken.append(time.process_time() - start)
    int8, float32 = times
    return float(np.median(int8) / np.median(float32)), min(int8) / min(float32), 1e3 * min(float32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path("verdict_calibration"), help="folder of the artifacts; default: %(default)s"
    )
    parser.add_argument("--seconds", type=float, default=10, help="of timing per pair; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on stdout")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    arguments.work.mkdir(parents=True, exist_ok=True)
    with console.status("making the artifacts"):
        pairs = cases(arguments.work)
    rows: list[dict[str, Any]] = []
    for case in pairs:
        with console.status(case.name):
            predicted = judge(*read(case.int8, DEVICE))
            from_float = judge(*read(case.float32, DEVICE))
            median, fastest, float_ms = measure(case, arguments.seconds)
        row: dict[str, Any] = dict(
            name=case.name, predicted=predicted.ratio, from_float=from_float.ratio, median=median, fastest=fastest
        )
        side = (predicted.ratio < 1) == (fastest < 1)
        right = abs(fastest - 1) <= 0.1 if predicted.expectation == "about equal" else side
        rows.append(row | dict(float_ms=float_ms, says=predicted.expectation, side=side, right=right))
    table = Table("model and artifact", title="int8 / float, 1 thread")
    for column in ("predicted", "says", "measured, fastest", "measured, median", "float ms", "words", "side of 1"):
        table.add_column(column, justify="right")
    for row in rows:
        ratio, *measured = (f"{row[key]:.2f}" for key in ("predicted", "fastest", "median", "float_ms"))
        verdicts = ("right" if row[key] else "[red]WRONG[/]" for key in ("right", "side"))
        table.add_row(row["name"], ratio, row["says"], *measured, *verdicts)
    Console(width=150).print(table)
    words, sides = (sum(row[key] for row in rows) for key in ("right", "side"))
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"right of {len(rows)}: words {words}, side of 1 {sides}; {load}")
    if arguments.json:
        print(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    run_command(main)
