"""``python -m lavit_edge.quantize``: measured ranges, quantisation-aware training, and a checkpoint that carries its int8 form.

Exit codes: 0 saved; 1 --max-drop cannot be met; 2 a mistake that one line on stderr explains; 130 interrupted. Nothing is written
but for 0.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from lavit_edge.checkpoint import Checkpoint, load_checkpoint, read_config, save_checkpoint, write_config
from lavit_edge.cli import Parser, add_trust, run_command
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.files import file_sha256, new_folder
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.cost import Cost
from lavit_edge.quantize.evaluate import batches, better, logits, measure
from lavit_edge.quantize.program import float_program, int8_program
from lavit_edge.quantize.render import card, show
from lavit_edge.quantize.scheme import DESCRIPTION, check_tensors, chosen_float_layers, quantized_model
from lavit_edge.quantize.sensitivity import Judge, LimitMissed, hold_out

PROGRAM = "int8.pt2"
EVAL_BATCH = 32
TRAINING = ("epochs", "max_steps", "batch_size", "lr", "range_lr", "freeze_ranges", "no_teacher", "seed", "device")  # recorded


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.quantize", description="Turn a checkpoint into an int8 checkpoint.")
    p.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="fp32 checkpoint folder")
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with train/<class>/ and val/<class>/")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the int8 checkpoint")
    p.add_argument("--epochs", type=int, default=1, help="of quantisation-aware training; 0 stops after calibration")
    p.add_argument("--max-steps", type=int, metavar="N", help="end that training after N batches at the latest")
    p.add_argument("--batch-size", type=int, default=32, metavar="N", help="pictures a batch in training")
    p.add_argument("--lr", type=float, default=1e-5, help="learning rate of the weights")
    p.add_argument("--range-lr", type=float, default=1e-3, metavar="LR", help="of each range, as a share of the range")
    p.add_argument("--freeze-ranges", type=float, default=1.0, metavar="SHARE", help="of the training, after which ranges stay")
    p.add_argument("--no-teacher", action="store_true", help="train for the labels instead of the fp32 model's logits")
    p.add_argument("--calibration-pictures", type=int, default=128, metavar="N", help="of train/, evenly over the classes")
    p.add_argument("--float-layers", nargs="+", default=[], metavar="PATTERN", help="stay float too, such as '*.attention.query'")
    p.add_argument("--max-drop", type=float, metavar="POINTS", help="of top-1 against fp32: keep in float what it takes")
    p.add_argument("--min-sqnr", type=float, metavar="DB", help="of the logits, before QAT: the same, besides --max-drop")
    p.add_argument("--judging-pictures", type=int, default=512, metavar="N", help="of train/, held out, that judge --max-drop")
    p.add_argument("--limit-val", type=int, metavar="N", help="judge on N pictures of val/, evenly over the classes")
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="to train and judge on; calibration is on the CPU")
    p.add_argument("--seed", type=int, default=0, help="of the order and mirroring of training pictures")
    add_trust(p)
    p.add_argument("--json", action="store_true", help="print the result as JSON; progress goes to standard error anyhow")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # NNCF's progress
            result = run(arguments)
    except LimitMissed as verdict:
        print(verdict, file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        show(result)
    return 0


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Quantises, judges and saves; returns what it wrote to ``config["quantization"]``, and the folder."""
    for name in ("calibration_pictures", "judging_pictures", "batch_size", "limit_val", "max_steps"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    if arguments.epochs < 0 or not (arguments.lr > 0 and arguments.range_lr > 0):
        raise UserError("--epochs must not be negative, --lr and --range-lr must be positive")
    if not 0 <= arguments.freeze_ranges <= 1:
        raise UserError("--freeze-ranges is a share of the training, from 0 to 1")
    if arguments.max_drop is not None and not 0 <= arguments.max_drop <= 100:
        raise UserError("--max-drop is in points of top-1, from 0 to 100")
    if arguments.min_sqnr is not None and (arguments.max_drop is None or not arguments.min_sqnr <= 200):
        raise UserError("--min-sqnr is in dB, at most 200, and goes with --max-drop")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device; use --device cpu")
    checkpoint = load_checkpoint(arguments.checkpoint, trust_builder=arguments.trust_builder)
    train = PictureFolder(arguments.data, "train", checkpoint.contract.labels)
    val = PictureFolder(arguments.data, "val", checkpoint.contract.labels)
    val.spread(arguments.limit_val or len(val))
    if len(train) < arguments.calibration_pictures:
        raise UserError(
            f"{arguments.data / 'train'} has {len(train)} pictures, calibration takes {arguments.calibration_pictures}; "
            "add pictures or lower --calibration-pictures"
        )
    chosen = PictureFolder(arguments.data, "train", checkpoint.contract.labels).spread(arguments.calibration_pictures)
    judging = None
    if arguments.max_drop is not None:
        judging, train = hold_out(train, chosen, arguments.judging_pictures)
    if arguments.epochs and len(train) < arguments.batch_size:
        raise UserError(
            f"{arguments.data / 'train'} has {len(train)} pictures to train on, fewer than one batch; lower --batch-size"
        )
    chosen.check(strict=False)
    with new_folder(arguments.out, replace=False) as folder, _progress() as progress:
        form, facts = quantize(checkpoint, train, val, chosen, judging, arguments, progress)
        training = {name: getattr(arguments, name) for name in TRAINING}
        facts |= {
            "val_pictures": len(val) - len(val.skipped),
            "training": training if arguments.epochs else None,
            "calibration": [
                {"path": path.relative_to(arguments.data).as_posix(), "sha256": file_sha256(path)} for path in chosen.paths
            ],
            "versions": _versions(),
        }
        _save(folder, checkpoint, form, facts)
    return {"out": str(arguments.out), **facts}


def quantize(
    checkpoint: Checkpoint,
    train: PictureFolder,
    val: PictureFolder,
    chosen: PictureFolder,
    judging: PictureFolder | None,
    arguments: argparse.Namespace,
    progress: Progress,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The int8 form that is kept, and how it came about, for ``config["quantization"]``.

    Args:
        chosen: pictures to calibrate on.
        judging: pictures that decide about float layers and about QAT; None: only the default ones, and ``val`` decides.
    """
    from lavit_edge.quantize import calibrate, mixed, qat  # nncf, which takes seconds to import

    contract, device = checkpoint.contract, arguments.device
    deployed = Deployed(checkpoint.model, contract).eval()
    float_layers = chosen_float_layers(deployed.model, arguments.float_layers)
    pictures = [inputs for inputs, _ in batches(chosen, contract, 1)]

    def calibrated(float_layers: frozenset[str]) -> Deployed:
        try:
            return calibrate.calibrate(copy.deepcopy(deployed).cpu(), pictures, float_layers)
        except calibrate.nncf.torch.extensions.ExtensionLoaderTimeoutException as error:
            message = "NNCF waited in vain for its kernels to be built; python -m lavit_edge.doctor says what to do"
            raise UserError(message) from error

    def on_val(title: str, model: torch.nn.Module) -> tuple[Tensor, Tensor]:
        inputs = batches(val, contract, EVAL_BATCH)
        return logits(model, _track(progress, inputs, -(-len(val) // EVAL_BATCH), f"{title} on val"), device)

    reference, targets = on_val("fp32", deployed)
    metrics, forms = {"fp32": measure(reference, targets)}, {}
    judge = found = None
    if judging is None:
        model = calibrated(float_layers)
    else:
        judge = Judge(deployed, list(batches(judging, contract, EVAL_BATCH)), arguments.max_drop, arguments.min_sqnr, device)
        cost = Cost(float_program(checkpoint), float_layers)
        model, float_layers, found = mixed.keep_accurate(
            deployed, judge, cost, calibrated, lambda items, title: _track(progress, items, len(items), title)
        )

    def judge_form(row: str) -> None:
        forms[row] = calibrate.int8_form(model)
        check_tensors(deployed.model, forms[row], float_layers, "the model just quantised")
        fake = copy.deepcopy(deployed).cpu()
        fake.model = quantized_model(fake.model, forms[row], float_layers, "fake")
        metrics[row] = measure(*on_val(row.upper(), fake), reference)
        if judge and found:
            judge.use(forms[row], float_layers)
            found["metrics"][row] = judge()

    judge_form("ptq")
    if arguments.epochs:
        rng = np.random.default_rng(arguments.seed)
        steps = arguments.epochs * (len(train) // arguments.batch_size)
        steps = min(steps, arguments.max_steps or steps)
        task = progress.add_task("QAT", total=steps)
        try:
            qat.fine_tune(
                model,
                None if arguments.no_teacher else deployed,
                lambda: qat.shuffled(train, contract, arguments.batch_size, rng),
                steps=steps,
                lr=arguments.lr,
                range_lr=arguments.range_lr,
                freeze=round(arguments.freeze_ranges * steps),
                report=lambda loss: progress.update(task, advance=1, description=f"QAT, loss {loss:.5f}"),
                device=device,
            )
        except calibrate.nncf.InstallationError as error:
            raise UserError("NNCF could not compile its CUDA kernels: put nvcc on the PATH, or use --device cpu") from error
        judge_form("qat")
    deciding = found["metrics"] if found else metrics
    kept = (
        "qat"
        if "qat" in deciding and better(deciding["qat"], deciding["ptq"], len(judge.targets if judge else targets))
        else "ptq"
    )
    order = [path for path, _ in deployed.model.named_modules()]
    return forms[kept], {
        "scheme": DESCRIPTION,
        "float_layers": sorted(float_layers, key=order.index),
        "kept": kept,
        "metrics": _plain(metrics),
        "sensitivity": found
        and {
            "max_drop": arguments.max_drop,
            "min_sqnr": arguments.min_sqnr,
            **{name: _plain(value) for name, value in found.items()},
        },
    }


def _plain(value: Any) -> Any:
    """``value`` for JSON."""
    return {name: figures.to_dict() for name, figures in value.items()} if isinstance(value, dict) else value


def _save(folder: Path, checkpoint: Checkpoint, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Writes the quantised checkpoint, and the program that reloads from it with its hash."""
    own = {"format", "model", "contract", "sha256", "quantization"}
    save_checkpoint(
        folder,
        checkpoint.model.state_dict(),
        model=checkpoint.config["model"],
        contract=checkpoint.contract,
        card=card(checkpoint, facts),
        facts={**{name: value for name, value in checkpoint.config.items() if name not in own}, "quantization": facts},
        int8=tensors,
    )
    saved = dataclasses.replace(checkpoint, path=folder, config=read_config(folder))
    torch.export.save(int8_program(saved), folder / PROGRAM)
    saved.config["sha256"][PROGRAM] = file_sha256(folder / PROGRAM)
    write_config(folder, saved.config)


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
