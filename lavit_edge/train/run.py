"""From pictures to a checkpoint: what a run needs is found and checked, then it trains."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from lavit_edge.checkpoint import Checkpoint, find_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import PictureFolder
from lavit_edge.data.shards import ShardedPictures, holds_shards
from lavit_edge.errors import UserError
from lavit_edge.files import claimed
from lavit_edge.memory import keep_freed
from lavit_edge.models import create_model
from lavit_edge.train.cache import CachedSource, open_cache
from lavit_edge.train.check import check_pictures
from lavit_edge.train.config import TrainConfig
from lavit_edge.train.decision import settle
from lavit_edge.train.initial import carried, fill_from
from lavit_edge.train.loop import Run, Stopped
from lavit_edge.train.page import write_page
from lavit_edge.train.parts import BEST, CHECKPOINT, STATE, Parts
from lavit_edge.train.recipe import Recipe, default_recipe
from lavit_edge.train.shard_source import ShardSource
from lavit_edge.train.source import FolderSource, Source
from lavit_edge.train.teacher import load_teacher
from lavit_edge.train.threads import choose_threads, computing_with
from lavit_edge.train.world import World, join
from lavit_edge.verbs import silent

Split = PictureFolder | ShardedPictures


@dataclass(frozen=True)
class Trained:
    """
    Attributes:
        checkpoint: the folder.
        top1: of its weights, in 0..1.
        pictures: of the val split, that it was judged on.
        best, best_top1, best_epoch: of the epoch whose weights had most of the val split right; chosen so, that top-1 is a
            little too high.
    """

    checkpoint: Path
    top1: float
    pictures: int
    best: Path
    best_top1: float
    best_epoch: int


def train(
    data: Path | str,
    out: Path | str,
    recipe: Recipe | None = None,
    config: TrainConfig | None = None,
    *,
    console: Console | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Trained:
    """Trains a model: the command ``python -m lavit_edge.train``. Under ``torchrun`` every process calls it.

    Args:
        data: a folder with ``train/<class>/`` and ``val/<class>/``, or shards.
        out: gets ``log.csv``, a state to resume from, and ``checkpoint/``.
        recipe: what decides the result; ``Recipe().changed(["epochs=5"])`` or :func:`lavit_edge.train.recipe.find_recipe`. None:
            ``fine_tune`` where ``config.init`` is given, else ``Recipe()``.
        console: shows progress and a line for each epoch; None: nothing is shown.
        tell: gets a line for each picture that cannot be decoded, and what came of it all.

    Raises:
        UserError: data, recipe and config do not fit each other, the loss diverged, or a batch does not fit into the device.
        Stopped: on SIGTERM, where this is the main thread; the run is saved, and ``TrainConfig(resume=True)`` goes on with it.
    """
    config, out = config or TrainConfig(), Path(out)
    recipe = recipe or default_recipe(bool(config.init))
    world = join(config.device)
    if not (console and world.main):
        console = silent()
    with computing_with(config.threads or torch.get_num_threads()), keep_freed():
        run = prepare(Path(data), out, recipe, config, world, console, tell if world.main else lambda line: None)
        with claimed(out) if world.main else nullcontext():
            if world.main:
                _check_free(out, config)  # once more: it may have been another's until now
            if config.resume:
                run.resume()
            try:
                run.fit()
            except Stopped as stopped:
                console.print(stopped)
                raise
    best = run.best
    trained = Trained(out / CHECKPOINT, run.top1, run.val_pictures, out / BEST, best["val_top1"], best["epoch"])
    if world.main:
        tell(f"val top-1 {100 * trained.top1:.2f} % on {trained.pictures} pictures; checkpoint in {trained.checkpoint}")
        _, decision = settle((trained.best, trained.checkpoint), run.val, config.answers_right / 100, world.device)
        page = write_page(out)
        tell(f"best: {100 * trained.best_top1:.2f} % after epoch {trained.best_epoch}; checkpoint in {trained.best}")
        if decision:
            tell(f"not sure: {decision.sentence()}")
        tell(f"curves, confusion and mistakes: {page}")
    return trained


def prepare(
    data: Path, out: Path, recipe: Recipe, config: TrainConfig, world: World, console: Console, tell: Callable[[str], None]
) -> Run:
    """Everything that can go wrong before training goes wrong here."""
    train, val = open_splits(data, config, console)
    if len(train.labels) < 2:
        raise UserError(f"{data / 'train'} has one class, {train.labels[0]!r}; there is nothing to tell apart")
    initial = [find_checkpoint(path, config.trust_builder) for path in config.init]
    if initial:
        contract = carried(initial[0].contract, recipe.image_size, train.labels, recipe.resize)  # type: ignore[arg-type]
    else:
        contract = InputContract(size=recipe.image_size, labels=train.labels, resize=recipe.resize)  # type: ignore[arg-type]
    torch.manual_seed(recipe.seed)
    model = create_model(recipe.model, num_classes=len(train.labels), image_size=recipe.image_size, drop_path=recipe.drop_path)
    if initial:
        for line in fill_from(initial, model, recipe.model, contract):
            tell(line)
    _check_free(out, config)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror}); choose another --out") from error
    if isinstance(train, PictureFolder) and isinstance(val, PictureFolder):
        pictures = check_pictures((train, val), contract, out, world, config.strict, tell)
        counts = list(train.inventory.counts.values())
    else:
        assert isinstance(train, ShardedPictures)
        assert isinstance(val, ShardedPictures)
        for split in (train, val):
            split.check(config.strict)
        pictures, counts = "".join(shard.sha256 for split in (train, val) for shard in split.shards), train.counts
    if world.device.type == "cpu":
        threads, why = (
            (config.threads, "--threads")
            if config.threads
            else choose_threads(model, recipe.image_size, config.workers, world.size)
        )
        torch.set_num_threads(threads)
        tell(f"{threads} thread{'s' * (threads > 1)} ({why}), {config.workers} workers")
    teacher = load_teacher(recipe.teacher, world.device, config.trust_builder) if recipe.teacher else None
    on_cpu = f"CPU, {torch.get_num_threads()} threads ({platform.machine()})"
    facts = {
        "data": data.resolve().name,
        "device": torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else on_cpu,
        "processes": world.size,
        "precision": config.computes_in(world.device.type),
        "compiled": config.compile,
        "started_from": [_origin(start) for start in initial],
    }
    source: Source
    if isinstance(train, ShardedPictures):
        source = ShardSource(train, recipe, world, config.workers)
    elif config.cache:
        file = open_cache(Path(config.cache), train, recipe, world, config.workers, tell=tell, console=console)
        source = CachedSource(train, recipe, world, config.workers, file)
    else:
        source = FolderSource(train, recipe, world, config.workers)
    parts = Parts(model, contract, source, val, teacher, facts, counts=counts, pictures=pictures)
    return Run(recipe, parts, out, world, config, console)


def _origin(start: Checkpoint) -> dict[str, Any]:
    """What is recorded of a checkpoint that a run starts from."""
    path = start.path.resolve()
    name = f"{path.parent.name}/{path.name}" if path.name in (CHECKPOINT, BEST) else path.name
    return {"name": name, "image_size": start.contract.size} | {
        key: start.config.get(key) for key in ("sha256", "metrics", "training")
    }


def _check_free(out: Path, config: TrainConfig) -> None:
    if (out / STATE).exists() and not config.resume:
        raise UserError(f"{out} already holds a run; add --resume to continue it, or choose another --out")


def open_splits(data: Path, config: TrainConfig, console: Console) -> tuple[Split, Split]:
    """What is trained on, and what is judged on."""
    if not holds_shards(data):
        train = PictureFolder(data, "train")
        return train, PictureFolder(data, "val", train.labels)
    if config.cache:
        raise UserError("--cache wants a folder of pictures; python -m lavit_edge.shards turns shards into one")
    return ShardedPictures(data, "train", quiet=console.quiet), ShardedPictures(data, "val", quiet=console.quiet)
