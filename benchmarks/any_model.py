"""Models of timm through the whole path: adapt, quantise, export with all gates, self-test, verify, verdict, benchmark.

    python benchmarks/any_model.py [--models resnet18 ...] [--work DIR]

Weights are random, so the decibels say whether the path is sound, not how well a trained model fares; batch norms have the
statistics of the pictures. A cell is "ok", or the gates that the artifact failed. timm comes with ``pip install -e '.[dev]'``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import lavit_edge
from lavit_edge.adapt.preprocessing import contract_of
from lavit_edge.benchmark.devices import BenchmarkConfig
from lavit_edge.cli import run_command
from lavit_edge.data.folder import free_pictures
from lavit_edge.errors import one_line
from lavit_edge.export.config import ExportConfig
from lavit_edge.parity.agreement import FLOAT, PROGRAM
from lavit_edge.parity.check import Checked
from lavit_edge.parity.locate_render import sentence
from lavit_edge.quantize.config import QuantizeConfig
from lavit_edge.quantize.evaluate import batches
from lavit_edge.traced.builder import build
from lavit_edge.verify import VerifyConfig

CLASSES, PICTURES = 10, 16  # to calibrate with
SUFFIXES = (".pte", ".onnx", ".ort", ".mlpackage")
HEADS = ("model", "px", "dB", *SUFFIXES, "int8/fp32", "onnx/pte")
MODELS: dict[
    str, tuple[int, dict[str, Any]]
] = {  # timm's name -> pixels and options, cheapest first; the smallest size where a model is not tied to one
    "resnet18": (64, {}),
    "mobilenetv2_100": (64, {}),
    "mobilenetv4_conv_small": (64, {}),
    "efficientnet_lite0": (64, {}),
    "mobilenetv3_small_100": (64, {}),
    "convnext_femto": (64, {}),
    "pvt_v2_b0": (64, {}),
    "deit_tiny_patch16_224": (64, {"img_size": 64}),
    "repvit_m0_9": (64, {}),
    "mobilevitv2_050": (64, {}),
    "levit_128s": (224, {}),
    "efficientformerv2_s0": (224, {}),
}


@dataclasses.dataclass
class Row:
    """A model.

    Attributes:
        sqnr_db: of the int8 program against fp32, on the free pictures.
        cells: of each artifact, what it failed; "" if nothing.
        faults: a sentence for each failure.
        verdict: what int8 is expected to take of float's time on this kind of machine, by artifact.
        ratio: measured time of the ``.onnx`` over that of the ``.pte``.
        in_float: operators and how many of them.
    """

    name: str
    pixels: int
    sqnr_db: float
    cells: dict[str, str]
    faults: list[str]
    verdict: dict[str, float]
    ratio: float | None
    in_float: str

    def line(self) -> list[str]:
        gates = [self.cells.get(suffix, "none") or "ok" for suffix in SUFFIXES]
        verdict = " ".join(f"{self.verdict[suffix]:.2f}" for suffix in (".pte", ".onnx"))
        return [
            self.name,
            str(self.pixels),
            f"{self.sqnr_db:.1f}",
            *gates,
            verdict,
            "-" if self.ratio is None else f"{self.ratio:.2f}",
        ]


def measure_norms(module: nn.Module, pictures: Tensor) -> None:
    """Gives batch norms the statistics of what they see."""
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.train().momentum = 1.0
    with torch.no_grad():
        module(pictures)
    module.eval()


def save_adapted(name: str, pixels: int, options: dict[str, Any], out: Path) -> None:
    """Saves the checkpoint of a model with random weights."""
    torch.manual_seed(0)
    options = {"model_name": name, "num_classes": CLASSES, **options}
    module = build({"builder": "timm:create_model", "options": options}, name, True)
    contract = contract_of(module, [f"class {i}" for i in range(CLASSES)], {"size": pixels})
    pictures = torch.cat([picture for picture, _ in batches(free_pictures(contract), contract, 1)])
    mean, std = (torch.tensor(value).reshape(1, 3, 1, 1) for value in (contract.mean, contract.std))
    measure_norms(module, (pictures / 255 - mean) / std)
    lavit_edge.adapt(module, contract, out=out, builder="timm:create_model", options=options)


def failed(checked: Checked) -> Iterator[tuple[str, str, str]]:
    """Artifact, gate and sentence of each failure."""
    for name, passed in checked.selftest.items():
        if not passed:
            yield name, "self-test", f"{name}: its self-test fails"
    for located in checked.layers:
        if located.first:
            yield located.artifact, "layers", sentence(located, PROGRAM)
    for parity in checked.sets.values():
        for failure in parity.failures:
            yield failure.partition(":")[0], "top-1" if "top-1" in failure else "noise", failure


def take(name: str, pixels: int, options: dict[str, Any], work: Path) -> Row:
    """One model of timm all the way, in a folder of its own."""
    fp32, int8, bundle = (work / what for what in ("fp32", "int8", "bundle"))
    save_adapted(name, pixels, options, fp32)
    config = QuantizeConfig(epochs=0, calibration_pictures=PICTURES, limit_val=PICTURES, trust_builder=True)
    quantized = lavit_edge.quantize(fp32, None, int8, config)
    exported = lavit_edge.export(quantized, bundle, ExportConfig(trust_builder=True))
    again = lavit_edge.verify(bundle, VerifyConfig(trust_builder=True))  # from the files
    faults = list(dict.fromkeys([*failed(exported.checked), *failed(again)]))
    cells = {
        path.suffix: ", ".join(dict.fromkeys(gate for of, gate, _ in faults if of == path.name)) for path in exported.artifacts
    }
    timed = {}
    for path in (bundle / "model.pte", bundle / "model.onnx"):
        (measured,) = lavit_edge.benchmark(path, work / "reports", config=BenchmarkConfig(seconds=1.0))
        if measured.passed:
            timed[path.suffix] = measured.report["latency"]["p50_ns"]
    return Row(
        name,
        pixels,
        exported.checked.sets["free pictures"].pair(PROGRAM, FLOAT).sqnr_db,
        cells,
        [f"{name}: {words}" for _, _, words in faults],
        {Path(of).suffix: next(iter(found.values())).ratio for of, found in exported.verdicts.items()},
        timed[".onnx"] / timed[".pte"] if len(timed) == 2 else None,
        ", ".join(f"{each['what']} {each['count']}" for each in quantized.config["quantization"]["in_float"]),
    )


def known(name: str, work: Path) -> Row:
    """As an earlier run left it in ``work``, else anew."""
    folder, file = work / name, work / name / "row.json"
    if not file.exists():
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
        folder.mkdir(parents=True)
        file.write_text(json.dumps(dataclasses.asdict(take(name, *MODELS[name], folder))), encoding="utf-8")
    return Row(**json.loads(file.read_text("utf-8")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--work", type=Path, help="keep all in this folder; models that are in it are done")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=80, highlight=False)
    rows, refused = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.models:
            try:
                rows.append(known(name, arguments.work or Path(temporary)))
                print(rows[-1], file=sys.stderr, flush=True)
            except Exception as error:  # tools raise whatever they like: it is theirs that the table names
                refused.append(f"{name}: refused, {type(error).__name__}: {one_line(str(error))[:300]}")
                print(refused[-1], file=sys.stderr, flush=True)
    table = Table(box=None, padding=(0, 1, 0, 0))
    for head in HEADS:
        table.add_column(head)
    for row in rows:
        table.add_row(*row.line())
    console.print(table)
    for line in [
        *refused,
        *(fault for row in rows for fault in row.faults),
        *(f"{row.name}: in float {row.in_float}" for row in rows),
    ]:
        console.print(line, markup=False)
    return 0


if __name__ == "__main__":
    run_command(main)
