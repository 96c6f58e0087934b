"""Makes the package that ``scripts/gpu_job.py`` wants beside the tree: pictures as sheets, and what a teacher says of them.

    python scripts/gpu_pack.py --data IMAGENETTE --out data/gpu_job

The teacher (``pip install 'lavit-edge[teacher]'``) sees the pictures as the job will, behind the sheets' compression, and stays
at home. The settings of the views (``--set min_scale=... seed=... teacher_views=...``) and the size go into the package, and the
job trains with them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch

from lavit_edge.cli import run_command
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.files import new_folder
from lavit_edge.train.cache import open_cache
from lavit_edge.train.recipe import Recipe, find_recipe
from lavit_edge.train.resident import ResidentSource
from lavit_edge.train.sheets import FORMAT, PACKAGE, read_package, read_sheets, write_sheets
from lavit_edge.train.teacher import Teacher, load_teacher, stored_views, views_key
from lavit_edge.train.world import World, join

RECIPE = "imagenette_mobile"
VIEWS = "teacher.safetensors"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/<class>/ and val/<class>/")
    parser.add_argument("--out", type=Path, required=True, help="package folder; git must ignore it")
    parser.add_argument("--teacher", default="efficientnet_lite0", help="to distil from; default: %(default)s")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=f"beside those of {RECIPE}")
    parser.add_argument("--quality", type=int, default=50, help="of the sheets' AVIF, 0 to 100; default: %(default)s")
    parser.add_argument("--mib", type=float, default=64, help="at most so much, with the tracked tree; default: %(default)s")
    arguments = parser.parse_args()
    settings = [*arguments.set, f"teacher={arguments.teacher}"]
    recipe, world = find_recipe(RECIPE).changed(settings), join("auto")
    teacher = load_teacher(arguments.teacher, world.device)
    with new_folder(arguments.out) as new:
        write_pictures(arguments.data, new, recipe, settings, teacher, arguments.quality, world)
        size = _bytes(list(new.iterdir()))
        size += 4 * teacher.kept * recipe.teacher_views * len(read_package(new)["splits"]["train"]["files"])
        tree = tracked()
        print(f"package {size / 2**20:.1f} MiB, tracked tree {tree / 2**20:.1f} MiB")
        if size + tree > arguments.mib * 2**20:
            raise UserError(f"together more than {arguments.mib:g} MiB: lower --quality or teacher_views")
        source = ResidentSource(read_sheets(new, read_package(new), "train"), recipe, world, 0)
        key = views_key(teacher, recipe, source)
        stored_views(teacher, source, recipe.teacher_views, new / VIEWS, key, world.device, torch.float32)
    print(f"package in {arguments.out}")
    return 0


def write_pictures(
    data: Path, out: Path, recipe: Recipe, settings: list[str], teacher: Teacher, quality: int, world: World
) -> None:
    """Sheets of both splits, and ``package.json``."""
    train = PictureFolder(data, "train")
    splits: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    side = 0
    with tempfile.TemporaryDirectory() as work:
        for split, folder in (("train", train), ("val", PictureFolder(data, "val", train.labels))):
            folder.check(strict=True)
            pixels = np.load(open_cache(Path(work) / f"{split}.npy", folder, recipe, world, 2), mmap_mode="r")
            if side not in (0, pixels.shape[1]):
                raise UserError(f"{data}: the largest picture of val is {pixels.shape[1]} pixels wide, that of train {side}")
            side = pixels.shape[1]
            hashes |= write_sheets(pixels, out, split, quality)
            files = [f"{path.parent.name}/{path.name}" for path in folder.paths]
            splits[split] = {"files": files, "targets": folder.targets}
    facts = {"name": teacher.name, "size": teacher.size, "classes": teacher.classes, "exposure": teacher.exposure}
    package = {"format": FORMAT, "side": side, "labels": train.labels, "settings": settings, "teacher": facts}
    (out / PACKAGE).write_text(json.dumps({**package, "sheets": hashes, "splits": splits}), encoding="utf-8")


def tracked() -> int:
    """Bytes of the files that git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode:
        raise UserError("git does not say which files the tree has; run this in a clone")
    return _bytes([ROOT / name for name in listed.stdout.decode().split("\0") if name])


def _bytes(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


if __name__ == "__main__":
    run_command(main)
