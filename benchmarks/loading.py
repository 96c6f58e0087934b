"""How fast training batches come from a folder of pictures and from its shards, without a model.

    python benchmarks/loading.py FOLDER SHARDS

Pictures a second with one loader's worker, the default recipe (160 pixels, batches of 64, all augmentation). Folder and shards
take turns, a block of batches each, so that another process on the machine slows both. The files are in memory after the first
blocks, so a slow disk, for which shards are made, is not measured. Also the seconds of the check before training.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from lavit_edge.cli import run_command
from lavit_edge.data.folder import PictureFolder
from lavit_edge.data.shards import ShardedPictures
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.shard_source import ShardSource
from lavit_edge.train.source import FolderSource
from lavit_edge.train.world import World

UNTIMED, TIMED = 4, 12  # batches of a block: those that the worker has made ahead, and more


def rate(source: FolderSource | ShardSource, epoch: int, batch_size: int) -> float:
    """Pictures a second."""
    batches = source.batches(epoch, 0, None)
    for _ in range(UNTIMED):
        next(batches)
    start = time.perf_counter()
    for _ in range(TIMED):
        next(batches)
    return TIMED * batch_size / (time.perf_counter() - start)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path)
    p.add_argument("shards", type=Path)
    p.add_argument("--blocks", type=int, default=9)
    args = p.parse_args()
    recipe, world = Recipe(), World(0, 1, torch.device("cpu"))
    sources: dict[str, FolderSource | ShardSource] = {
        "folder": FolderSource(PictureFolder(args.folder, "train"), recipe, world, workers=1),
        "shards": ShardSource(ShardedPictures(args.shards, "train"), recipe, world, workers=1),
    }
    for pictures in (source.pictures for source in sources.values()):
        start = time.perf_counter()
        pictures.check(strict=False)
        print(f"{type(pictures).__name__}: checked {len(pictures)} pictures in {time.perf_counter() - start:.1f} s")
    rates: dict[str, list[float]] = {name: [] for name in sources}
    for block in range(args.blocks):
        for name, source in sources.items():
            rates[name].append(rate(source, block, recipe.batch_size))
    for name, found in rates.items():
        spread = f"median of {len(found)}; {min(found):.0f} to {max(found):.0f}"
        print(f"{name}: {statistics.median(found):.0f} pictures a second ({spread})")
    pairs = [b / a for a, b in zip(rates["folder"], rates["shards"], strict=True)]
    print(f"shards / folder: {statistics.median(pairs):.2f}")
    return 0


if __name__ == "__main__":
    run_command(main)
