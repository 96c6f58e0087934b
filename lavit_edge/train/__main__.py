"""``python -m lavit_edge.train``: train a model on a folder of pictures, in one process or under ``torchrun``.

Exit codes: 0 trained; 2 a mistake that one line on stderr explains; 130 interrupted; 143 stopped by SIGTERM, and saved.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import torch

from lavit_edge.checkpoint import load_checkpoint
from lavit_edge.cli import Parser, add_trust, run_command
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import PictureFolder
from lavit_edge.data.shards import ShardedPictures, holds_shards
from lavit_edge.errors import UserError
from lavit_edge.models import create_model
from lavit_edge.train.cache import CachedSource, open_cache
from lavit_edge.train.initial import fill_from
from lavit_edge.train.loop import STATE, Run, Stopped
from lavit_edge.train.recipe import Recipe, find_recipe, recipe_names
from lavit_edge.train.shard_source import ShardSource
from lavit_edge.train.source import FolderSource, Source
from lavit_edge.train.teacher import load_teacher
from lavit_edge.train.world import World, join


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.train", description="Train a model on a folder of pictures; under torchrun in several processes.")
    p.add_argument("--data", type=Path, required=True, help="folder with train/<class>/ and val/<class>/, or shards")
    p.add_argument("--out", type=Path, required=True, help="run folder: log.csv, state to resume from, checkpoint/")
    p.add_argument("--recipe", help=f"{', '.join(recipe_names())} (default: that of Recipe() in lavit_edge/train/recipe.py)")
    p.add_argument("--model", help="the same as --set model=MODEL; a name of lavit_edge.list_models()")
    p.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings that differ from the recipe"
    )
    p.add_argument(
        "--init", type=Path, nargs="+", default=[], metavar="CHECKPOINT",
        help="start from this, or from the mean weights of several; another size or other classes are fine",
    )  # fmt: skip
    p.add_argument("--device", default="auto", help="auto, cpu, cuda")
    p.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="autocast type")
    p.add_argument(
        "--compile", action="store_true", help="compile the model with torch.compile: minutes at the start, then faster"
    )
    p.add_argument("--workers", type=int, default=2, help="processes that decode and augment, for each training process")
    p.add_argument(
        "--cache", type=Path, help="decode the training pictures once, into this .npy file (in a folder: train.npy); faster"
    )
    p.add_argument("--save-minutes", type=float, help="also save in the middle of an epoch, this often")
    p.add_argument("--strict", action="store_true", help="refuse a picture that cannot be decoded instead of skipping it")
    add_trust(p)
    p.add_argument("--resume", action="store_true", help="continue the run in --out")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.workers < 0:
        raise UserError(f"--workers must be at least 0, not {args.workers}")
    recipe = (find_recipe(args.recipe) if args.recipe else Recipe()).changed(args.set)
    if args.model:
        recipe = recipe.changed([f"model={args.model}"])
    world = join(args.device)
    run = prepare(args, recipe, world)
    if args.resume:
        run.resume()
    try:
        top1 = run.fit()
    except Stopped as stopped:
        run.console.print(stopped, markup=False)
        return 143
    if world.main:
        print(f"val top-1 {100 * top1:.2f} % on {run.val_pictures} pictures; checkpoint in {args.out / 'checkpoint'}")
    return 0


def prepare(args: argparse.Namespace, recipe: Recipe, world: World) -> Run:
    """Everything that can go wrong before training goes wrong here."""
    train: PictureFolder | ShardedPictures
    val: PictureFolder | ShardedPictures
    if holds_shards(args.data):
        if args.cache:
            raise UserError("--cache wants a folder of pictures; python -m lavit_edge.shards turns shards into one")
        train, val = (ShardedPictures(args.data, split, quiet=not world.main) for split in ("train", "val"))
    else:
        train = PictureFolder(args.data, "train")
        val = PictureFolder(args.data, "val", train.labels)
    if len(train.labels) < 2:
        raise UserError(f"{args.data / 'train'} has one class, {train.labels[0]!r}; there is nothing to tell apart")
    contract = InputContract(size=recipe.image_size, labels=train.labels, resize=recipe.resize)  # type: ignore[arg-type]
    torch.manual_seed(recipe.seed)
    model = create_model(recipe.model, num_classes=len(train.labels), image_size=recipe.image_size, drop_path=recipe.drop_path)
    if initial := [load_checkpoint(path, trust_builder=args.trust_builder) for path in args.init]:
        fill_from(initial, model, recipe.model, recipe.image_size)
    if (args.out / STATE).exists() and not args.resume:
        raise UserError(f"{args.out} already holds a run; add --resume to continue it, or choose another --out")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {args.out} ({error.strerror}); choose another --out") from error
    for folder in (train, val):
        folder.check(args.strict)
        for skipped in folder.skipped if world.main else ():
            print(f"skipped: {skipped}")
    if (count := len(train.skipped) + len(val.skipped)) and world.main:
        print(f"skipped {count} pictures that could not be decoded")
    teacher = load_teacher(recipe.teacher, world.device, args.trust_builder) if recipe.teacher else None
    on_cpu = f"CPU, {torch.get_num_threads()} threads ({platform.machine()})"
    facts = {
        "data": args.data.resolve().name,
        "device": torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else on_cpu,
        "processes": world.size,
        "precision": args.precision,
        "compiled": args.compile,
        "started_from": [
            {"image_size": start.contract.size} | {name: start.config.get(name) for name in ("sha256", "metrics", "training")}
            for start in initial
        ],
    }
    source: Source
    if isinstance(train, ShardedPictures):
        source = ShardSource(train, recipe, world, args.workers)
    elif args.cache:
        file = open_cache(args.cache, train, recipe, world, args.workers)
        source = CachedSource(train, recipe, world, args.workers, file)
    else:
        source = FolderSource(train, recipe, world, args.workers)
    precision = torch.bfloat16 if args.precision == "bf16" else torch.float32
    return Run(
        recipe, model, contract, source, val, teacher, args.out, world, facts,
        precision=precision, compiled=args.compile, save_minutes=args.save_minutes,
    )  # fmt: skip


if __name__ == "__main__":
    run_command(main)
