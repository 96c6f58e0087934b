"""``python -m lavit_edge.quantize``: NNCF ranges, quantisation-aware training, and a checkpoint that carries its int8 form."""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from lavit_edge.checkpoint import CARD, Checkpoint, file_sha256, load_checkpoint, new_folder, save_checkpoint
from lavit_edge.cli import Parser, run_command
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.evaluate import Metrics, batches, better, logits, measure
from lavit_edge.quantize.program import int8_program
from lavit_edge.quantize.scheme import DESCRIPTION, check_tensors, quantized_model

PROGRAM = "int8.pt2"
RANGE_RATE = 100  # learning rate of a range, as a share of it, over that of the weights; docs/int8.md has what it gave
EVAL_BATCH = 32


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.quantize", description="Turn a checkpoint into an int8 checkpoint.")
    p.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="fp32 checkpoint folder")
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with train/<class>/ and val/<class>/")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the int8 checkpoint")
    p.add_argument("--epochs", type=int, default=1, help="of quantisation-aware training; 0 stops after calibration")
    p.add_argument("--max-steps", type=int, metavar="N", help="end that training after N batches at the latest")
    p.add_argument("--batch-size", type=int, default=32, metavar="N", help="pictures a batch in training")
    p.add_argument("--lr", type=float, default=1e-5, help=f"of the weights; ranges learn at {RANGE_RATE} times it, relatively")
    p.add_argument("--calibration-pictures", type=int, default=128, metavar="N", help="of train/, evenly over the classes")
    p.add_argument("--limit-val", type=int, metavar="N", help="judge on N pictures of val/, evenly over the classes")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="to train and judge on; calibration is on the CPU")
    p.add_argument("--seed", type=int, default=0, help="of the order and mirroring of training pictures")
    p.add_argument("--json", action="store_true", help="print the result as JSON; progress goes to standard error anyhow")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    with contextlib.redirect_stdout(sys.stderr):  # NNCF's progress
        result = run(arguments)
    if arguments.json:
        print(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        report(result)
    return 0


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Quantises, judges and saves; returns what it wrote to ``config["quantization"]``, and the folder."""
    for name in ("calibration_pictures", "batch_size", "limit_val", "max_steps"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    if arguments.epochs < 0 or not arguments.lr > 0:
        raise UserError("--epochs must not be negative, and --lr must be positive")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device; use --device cpu")
    checkpoint = load_checkpoint(arguments.checkpoint)
    train = PictureFolder(arguments.data, "train", checkpoint.contract.labels)
    val = PictureFolder(arguments.data, "val", checkpoint.contract.labels)
    val.spread(arguments.limit_val or len(val))
    if len(train) < arguments.calibration_pictures:
        raise UserError(
            f"{arguments.data / 'train'} has {len(train)} pictures, calibration takes {arguments.calibration_pictures}; "
            "add pictures or lower --calibration-pictures"
        )
    if arguments.epochs and len(train) < arguments.batch_size:
        raise UserError(f"{arguments.data / 'train'} has {len(train)} pictures, fewer than one batch; lower --batch-size")
    chosen = PictureFolder(arguments.data, "train", checkpoint.contract.labels).spread(arguments.calibration_pictures)
    chosen.check(strict=False)
    with new_folder(arguments.out, replace=False) as folder, _progress() as progress:
        metrics, tensors = quantize(checkpoint, train, val, chosen, arguments, progress)
        kept = "qat" if "qat" in metrics and better(metrics["qat"], metrics["ptq"]) else "ptq"
        training = {name: getattr(arguments, name) for name in ("epochs", "max_steps", "batch_size", "lr", "seed", "device")}
        facts = {
            "scheme": DESCRIPTION,
            "kept": kept,
            "metrics": {row: value.to_dict() for row, value in metrics.items()},
            "val_pictures": len(val) - len(val.skipped),
            "training": training if arguments.epochs else None,
            "calibration": [
                {"path": path.relative_to(arguments.data).as_posix(), "sha256": file_sha256(path)} for path in chosen.paths
            ],
            "versions": _versions(),
        }
        _save(folder, checkpoint, tensors[kept], facts)
    return {"out": str(arguments.out), **facts}


def quantize(
    checkpoint: Checkpoint,
    train: PictureFolder,
    val: PictureFolder,
    chosen: PictureFolder,
    arguments: argparse.Namespace,
    progress: Progress,
) -> tuple[dict[str, Metrics], dict[str, dict[str, Tensor]]]:
    """Metrics of ``fp32``, ``ptq`` and (with epochs) ``qat``, and the int8 form of the latter two."""
    from lavit_edge.quantize import calibrate, qat  # nncf, which takes seconds to import

    contract, device = checkpoint.contract, arguments.device
    deployed = Deployed(checkpoint.model, contract).eval()

    def judge(title: str, model: torch.nn.Module) -> tuple[Tensor, Tensor]:
        inputs = batches(val, contract, EVAL_BATCH)
        return logits(model, _track(progress, inputs, -(-len(val) // EVAL_BATCH), title), device)

    reference, targets = judge("fp32 on val", deployed)
    metrics, tensors = {"fp32": measure(reference, targets)}, {}

    def judge_form(row: str, form: dict[str, Tensor]) -> None:
        fake = copy.deepcopy(deployed).cpu()
        check_tensors(fake.model, form, "the model just quantised")
        fake.model = quantized_model(fake.model, form, "fake")
        metrics[row] = measure(*judge(f"{row.upper()} on val", fake), reference)
        tensors[row] = form

    pictures = [inputs for inputs, _ in batches(chosen, contract, 1)]
    progress.stop()  # NNCF draws its own bars
    try:
        model = calibrate.calibrate(copy.deepcopy(deployed).cpu(), pictures)
    except calibrate.nncf.torch.extensions.ExtensionLoaderTimeoutException as error:
        raise UserError("NNCF waited in vain for its kernels to be built; python -m lavit_edge.doctor says what to do") from error
    progress.start()
    judge_form("ptq", calibrate.int8_form(model))
    if arguments.epochs:
        rng = np.random.default_rng(arguments.seed)
        steps = arguments.epochs * (len(train) // arguments.batch_size)
        steps = min(steps, arguments.max_steps or steps)
        task = progress.add_task("QAT", total=steps)
        try:
            qat.fine_tune(
                model,
                deployed,
                lambda: qat.shuffled(train, contract, arguments.batch_size, rng),
                steps=steps,
                lr=arguments.lr,
                range_lr=RANGE_RATE * arguments.lr,
                report=lambda loss: progress.update(task, advance=1, description=f"QAT, loss {loss:.5f}"),
                device=device,
            )
        except calibrate.nncf.InstallationError as error:
            raise UserError("NNCF could not compile its CUDA kernels: put nvcc on the PATH, or use --device cpu") from error
        judge_form("qat", calibrate.int8_form(model))
    return metrics, tensors


def _save(folder: Path, checkpoint: Checkpoint, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Writes the quantised checkpoint and the program that reloads from it."""
    own = {"format", "model", "contract", "sha256", "quantization"}
    save_checkpoint(
        folder,
        checkpoint.model.state_dict(),
        model=checkpoint.config["model"],
        contract=checkpoint.contract,
        card=_card(checkpoint, facts),
        facts={**{name: value for name, value in checkpoint.config.items() if name not in own}, "quantization": facts},
        int8=tensors,
    )
    torch.export.save(int8_program(load_checkpoint(folder)), folder / PROGRAM)


def _card(checkpoint: Checkpoint, facts: dict[str, Any]) -> str:
    """The fp32 model card with a section on the int8 form."""
    card = checkpoint.path / CARD
    text = card.read_text(encoding="utf-8").split("\n## int8\n")[0].rstrip() if card.is_file() else "# Model card"
    rows = [f"| {name} | {100 * top1:.2f} % | {sqnr} |" for name, top1, sqnr in _rows(facts)]
    lines = [
        "",
        "## int8",
        "",
        f"Kept: **{facts['kept'].upper()}**. Judged on {facts['val_pictures']} validation pictures; calibrated on "
        f"{len(facts['calibration'])} training pictures (`config.json` lists them). SQNR is that of the logits against fp32.",
        "",
        "| model | top-1 | SQNR |",
        "|---|---|---|",
        *rows,
        "",
        *[f"- {name}: {value}" for name, value in DESCRIPTION.items()],
        "",
    ]
    return text + "\n" + "\n".join(lines)


def _rows(facts: dict[str, Any]) -> Iterator[tuple[str, float, str]]:
    names = {"fp32": "fp32", "ptq": "int8, PTQ", "qat": "int8, QAT"}
    for row, metrics in facts["metrics"].items():
        sqnr = metrics["sqnr_db"]
        yield names[row], metrics["top1"], "" if sqnr is None else f"{sqnr:.1f} dB"


def report(result: dict[str, Any]) -> None:
    """The table, and what was kept."""
    console = Console()
    table = Table(title=f"{result['val_pictures']} validation pictures")
    for column in ("model", "top-1", "SQNR of the logits"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, top1, sqnr in _rows(result):
        table.add_row(name, f"{100 * top1:.2f} %", sqnr)
    console.print(table)
    if "qat" in result["metrics"]:
        word = "beats PTQ and is kept" if result["kept"] == "qat" else "does not beat PTQ (top-1, then SQNR): PTQ is kept"
        console.print(f"QAT {word}")
    console.print(f"saved {result['out']}", soft_wrap=True)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _track(progress: Progress, inputs: Iterable[Any], total: int, title: str) -> Iterator[Any]:
    task = progress.add_task(title, total=total)
    for item in inputs:
        yield item
        progress.advance(task)


def _versions() -> dict[str, str]:
    import nncf

    return {"nncf": nncf.__version__, "torch": torch.__version__}


if __name__ == "__main__":
    run_command(main)
