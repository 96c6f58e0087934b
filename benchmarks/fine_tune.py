"""The recipe fine_tune, its former length and ten neighbours of that, from the bundled checkpoint, on small sets of ten classes.

    OMP_NUM_THREADS=1 python benchmarks/fine_tune.py --out DIR digits
    OMP_NUM_THREADS=1 python benchmarks/fine_tune.py --out DIR fashion --idx /usr/share/datasets

``digits`` are those of scikit-learn (UCI, 8 x 8, grey), ``fashion`` is Fashion-MNIST (28 x 28, grey, MIT licence; Debian's
dataset-fashion-mnist). Of each class the first 20 train and the next 30, or the first 30 of the test split, judge. All runs have
the same seed; a run that is done is not trained again.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tables import markdown

import lavit_edge
from lavit_edge import TrainConfig
from lavit_edge.checkpoint import load_checkpoint
from lavit_edge.cli import run_command
from lavit_edge.export.__main__ import DEFAULT_CHECKPOINT
from lavit_edge.train.parts import BEST, CHECKPOINT
from lavit_edge.train.recipe import find_recipe

CLOTHES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
TRAIN, VAL = 20, 30  # pictures of each class
Split = tuple[NDArray[np.uint8], NDArray[np.integer]]  # pictures, classes
SHORT = "epochs=20 patience=8"
SETTINGS = (
    "",
    SHORT,
    f"{SHORT} lr=0.0003",
    f"{SHORT} lr=0.003",
    "epochs=10",
    "epochs=40 patience=0",
    f"{SHORT} batch_size=8",
    f"{SHORT} batch_size=32",
    f"{SHORT} mix_probability=0.5",
    f"{SHORT} randaugment_operations=0 erasing=0",
    f"{SHORT} min_scale=0.6",
    f"{SHORT} optimizer=muon",
)


def fashion(idx: Path) -> list[Split]:
    """Training and test split, from the files in IDX format (LeCun)."""

    def read(name: str, header: int) -> NDArray[np.uint8]:
        return np.frombuffer(gzip.decompress(next(idx.rglob(f"{name}-ubyte.gz")).read_bytes())[header:], np.uint8)

    return [(read(f"{name}-images-idx3", 16).reshape(-1, 28, 28), read(f"{name}-labels-idx1", 8)) for name in ("train", "t10k")]


def digits() -> list[Split]:
    """Training pictures, and the others."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels, labels = (found.images * (255 / 16)).astype(np.uint8), found.target
    first = np.isin(np.arange(len(labels)), [np.flatnonzero(labels == label)[:TRAIN] for label in range(10)])
    return [(pixels[first], labels[first]), (pixels[~first], labels[~first])]


def write(splits: list[Split], names: Sequence[str], out: Path) -> Path:
    """Makes ``train/<class>/`` and ``val/<class>/`` of the first pictures of each class."""
    for (pixels, labels), split, count in zip(splits, ("train", "val"), (TRAIN, VAL), strict=True):
        for label, name in enumerate(names):
            (out / split / name).mkdir(parents=True, exist_ok=True)
            for number in np.flatnonzero(labels == label)[:count]:
                Image.fromarray(pixels[number]).convert("RGB").save(out / split / name / f"{number}.png")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=["digits", "fashion"])
    parser.add_argument("--idx", type=Path, help="folder with Fashion-MNIST's four files, at any depth")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures and the runs")
    arguments = parser.parse_args()
    if arguments.set == "fashion" and arguments.idx is None:
        parser.error("fashion needs --idx")
    names = [f"digit {number}" for number in range(10)] if arguments.set == "digits" else CLOTHES
    splits = digits() if arguments.set == "digits" else fashion(arguments.idx)
    data = write(splits, names, arguments.out / f"{arguments.set}-pictures")
    lines = [["recipe", "top-1", "at epoch", "seconds"]]
    for number, settings in enumerate(SETTINGS):
        run = arguments.out / f"{arguments.set}-{number}"
        if not (run / "training.html").exists():
            recipe = find_recipe("fine_tune").changed(settings.split())
            lavit_edge.train(data, run, recipe, TrainConfig(init=(DEFAULT_CHECKPOINT,), workers=1))
        best, last = (load_checkpoint(run / name).config["metrics"] for name in (BEST, CHECKPOINT))
        lines.append([settings or "`fine_tune`", f"{100 * best['val_top1']:.1f} %", str(best["epoch"]), str(last["seconds"])])
        print(*lines[-1], sep="  ", flush=True)
    print(markdown(arguments.set, lines))
    return 0


if __name__ == "__main__":
    run_command(main)
