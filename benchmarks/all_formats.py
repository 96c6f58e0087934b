"""Every architecture in its phone size, int8, in all six formats: agreement with the int8 program, size, time of conversion.

    python benchmarks/all_formats.py --litert litert/bin/python [--models vit_nano ...] [--work DIR]

Bodies have random weights, whose norms have the statistics of the free pictures; heads are fitted to these pictures' own classes
by least squares, so that logits depend on what is seen; int8 ranges reach from the smallest value to the largest on some of the
pictures. So the decibels say whether a format computes what the program computes, not how well a trained model fares. The time
of a conversion is processor time, from the int8 program to the sealed file; for the first model it includes the import of the
toolchain. LiteRT's converter has an environment of its own (README.md), whose Python is ``--litert``; there every conversion
includes it, and without it that column stays empty.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from tables import Lines, markdown
from torch import Tensor
from torch.export import ExportedProgram

from lavit_edge.artifact.payload import Payload
from lavit_edge.artifact.runners import open_artifact
from lavit_edge.checkpoint import WEIGHTS, Checkpoint, load_checkpoint, save_checkpoint
from lavit_edge.cli import run_command
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import FREE_PICTURES, PictureFolder
from lavit_edge.doctor.smallest import int8_form
from lavit_edge.errors import UserError
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import TARGETS
from lavit_edge.metrics import sqnr
from lavit_edge.models import create_model, list_models
from lavit_edge.models.classifier import Classifier
from lavit_edge.models.deployed import Deployed, to_input
from lavit_edge.quantize import float_program, int8_program

PIXELS = 96  # operators are those of every size, and Core AI's interpreter takes a while
MODELS = ["lavit_mobile_s", *(name for name in list_models() if name.endswith("_nano"))]
CALIBRATION, JUDGED = 20, 20  # pictures
RIDGE = 0.1  # of the mean square of a feature
ELSEWHERE = """
import sys
from pathlib import Path
import torch
from all_formats import convert
from lavit_edge.contract import InputContract
from lavit_edge.errors import UserError
from lavit_edge.export.golden import make_payload
name, source, path = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
texts = {"contract": ""}
program = torch.export.load(source, extra_files=texts)
payload = make_payload(program, InputContract.from_json(texts["contract"]), {}, 1.0)
try:
    print(convert(name, program, payload, path))
except UserError as error:
    sys.exit(str(error))
"""


@dataclass
class Format:
    """What became of a model in one format.

    Attributes:
        same: pictures with the program's top-1.
        sqnr_db: of the logits against the program's.
        seconds: of processor time that the conversion took; None of an ``.ort``, which comes with the ``.onnx``.
    """

    megabytes: float
    same: int
    sqnr_db: float
    seconds: float | None


@dataclass
class Row:
    """A model.

    Attributes:
        own_db: of the int8 program against fp32, on the same pictures.
        fp32_megabytes: of the weights.
        formats: by suffix.
        refused: a sentence for each converter that refused the program.
    """

    name: str
    own_db: float
    fp32_megabytes: float
    formats: dict[str, Format] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def pictures(split: str, contract: InputContract, count: int) -> tuple[np.ndarray, Tensor]:
    """uint8 ``(count, size, size, 3)`` of the free pictures, evenly over their classes, and these."""
    folder = PictureFolder(FREE_PICTURES, split).spread(count)
    seen, targets = zip(*folder.inputs(contract, True), strict=True)
    return np.stack(seen), torch.tensor(targets)


@torch.no_grad()
def fitted(name: str, contract: InputContract) -> Classifier:
    """Random weights, norms with the statistics of pictures, and the head that answers these best in the least squares."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=len(contract.labels), image_size=contract.size)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (contract.mean, contract.std))
    seen, targets = pictures("train", contract, len(PictureFolder(FREE_PICTURES, "train")))
    inputs = (to_input(seen) / 255 - mean) / std
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None
            torch.nn.init.ones_(module.weight)
    model.train()(inputs)
    features = model.eval().features(inputs)[0].double()
    centre = features.mean(0)
    features -= centre
    wanted = torch.nn.functional.one_hot(targets, len(contract.labels)).double()
    wanted -= wanted.mean(0)
    products = features.T @ features
    weight = torch.linalg.solve(products + RIDGE * products.diagonal().mean() * torch.eye(len(products)), features.T @ wanted).T
    model.head.weight.copy_(weight)
    model.head.bias.copy_(-weight @ centre)
    return model


@torch.no_grad()
def quantised(name: str, path: Path) -> Checkpoint:
    """The checkpoint of a model with its int8 form."""
    contract = InputContract(PIXELS, PictureFolder(FREE_PICTURES, "train").labels)
    model = fitted(name, contract)
    int8 = int8_form(Deployed(model, contract).eval(), to_input(pictures("train", contract, CALIBRATION)[0]))
    save_checkpoint(path, model.state_dict(), model={"name": name}, contract=contract, card="Random weights.\n", int8=int8)
    return load_checkpoint(path)


def convert(target: str, program: ExportedProgram, payload: Payload, path: Path) -> float:
    """Writes an artifact; seconds of processor time. Raises :class:`UserError` with the tool's reason."""
    start = time.process_time()
    TARGETS[target].export(program, payload, path)
    return time.process_time() - start


def convert_elsewhere(python: Path, target: str, program: ExportedProgram, contract: InputContract, path: Path) -> float:
    """The same in an environment of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "int8.pt2"
        torch.export.save(program, source, extra_files={"contract": contract.to_json()})
        command = [str(python), "-c", ELSEWHERE, target, str(source), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or ["it says nothing"])[-1])
    return float(done.stdout.split()[-1])


def size(path: Path) -> float:
    """In MB, of a file or a folder."""
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file()) / 1e6


@torch.no_grad()
def take(name: str, work: Path, litert: Path | None) -> Row:
    """One model in all formats, in a folder of its own."""
    checkpoint = load_checkpoint(work / "int8") if (work / "int8").exists() else quantised(name, work / "int8")
    judged = pictures("val", checkpoint.contract, JUDGED)[0]
    program = int8_program(checkpoint)
    modules = [each.module(check_guards=False) for each in (float_program(checkpoint), program)]
    fp32, int8 = (np.concatenate([module(each[None]).numpy() for each in to_input(judged)]) for module in modules)
    row = Row(name, sqnr(fp32, int8), size(checkpoint.path / WEIGHTS))
    payload = make_payload(program, checkpoint.contract, {}, 1.0)
    for target in TARGETS.values():
        path = work / f"model{target.suffix}"
        try:
            if target.name != "litert":
                seconds: float | None = convert(target.name, program, payload, path)
            elif litert is not None:
                seconds = convert_elsewhere(litert, target.name, program, checkpoint.contract, path)
            else:
                continue
        except UserError as error:
            row.refused[target.suffix] = str(error)
            continue
        for made in (path, path.with_suffix(".ort")) if target.name == "onnx" else (path,):
            run = open_artifact(made, threads=1)
            found = np.stack([run(picture) for picture in judged])
            same = int((found.argmax(1) == int8.argmax(1)).sum())
            row.formats[made.suffix] = Format(size(made), same, sqnr(int8, found), seconds)
            seconds = None
            print(name, made.name, row.formats[made.suffix], file=sys.stderr, flush=True)
    return row


def cell(row: Row, suffix: str) -> str:
    found = row.formats.get(suffix)
    return "refused" if suffix in row.refused else "-" if found is None else f"{found.same}, {found.sqnr_db - row.own_db:+.1f}"


def tables(rows: list[Row]) -> dict[str, Lines]:
    """By title: agreement, and what the artifacts cost."""
    suffixes = [".pte", ".onnx", ".ort", ".mlpackage", ".tflite", ".aimodel"]
    agreement = [["model", "int8, dB", *suffixes]]
    cost = [["model", "fp32, MB", *suffixes]]
    for row in rows:
        agreement.append([row.name, f"{row.own_db:.1f}", *(cell(row, suffix) for suffix in suffixes)])
        found = [row.formats.get(suffix) for suffix in suffixes]
        texts = [
            "-" if each is None else f"{each.megabytes:.2f}" + ("" if each.seconds is None else f", {each.seconds:.0f} s")
            for each in found
        ]
        cost.append([row.name, f"{row.fp32_megabytes:.2f}", *texts])
    return {
        f"of {JUDGED} pictures, those with the program's top-1; dB against it, over what int8 has against fp32": agreement,
        "MB, and seconds of processor time to convert": cost,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--litert", type=Path, metavar="PYTHON", help="of the environment with the extra litert")
    parser.add_argument("--work", type=Path, help="keep all in this folder; quantised models that are in it are not made again")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.models:
            folder = (arguments.work or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            rows.append(take(name, folder, arguments.litert))
    console = Console(highlight=False, soft_wrap=True)
    for title, lines in tables(rows).items():
        console.print(markdown(title, lines), markup=False)
    for row in rows:
        for suffix, reason in row.refused.items():
            console.print(f"- {row.name}{suffix}: {reason}", markup=False)
    return 0


if __name__ == "__main__":
    run_command(main)
