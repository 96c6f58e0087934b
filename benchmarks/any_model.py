"""Models of timm through adapt and calibration: SQNR of the int8 program against fp32, and what stays in float.

    python benchmarks/any_model.py [--models resnet18 ...] [--pictures 16]

Weights are random, so the figure says whether the path is sound, not how well a trained model fares; batch norms have the
statistics of the pictures. timm comes with ``pip install -e '.[dev]'``.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

import torch
from artifacts import quantised
from torch import nn

from lavit_edge.adapt.preprocessing import contract_of
from lavit_edge.adapt.run import adapt
from lavit_edge.data.folder import free_pictures
from lavit_edge.errors import UserError
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.evaluate import batches, sqnr
from lavit_edge.quantize.in_float import in_float
from lavit_edge.quantize.program import float_program
from lavit_edge.quantize.scheme import default_float_layers, quantizable, quantizable_additions
from lavit_edge.traced.builder import build

CLASSES = 10
MODELS = {  # timm's name -> pixels and options; the smallest size where a model is not tied to one
    "mobilenetv2_100": (64, {}),
    "mobilenetv3_small_100": (64, {}),
    "mobilenetv4_conv_small": (64, {}),
    "efficientnet_lite0": (64, {}),
    "resnet18": (64, {}),
    "repvit_m0_9": (64, {}),
    "mobilevitv2_050": (64, {}),
    "pvt_v2_b0": (64, {}),
    "deit_tiny_patch16_224": (64, {"img_size": 64}),
    "levit_128s": (224, {}),
    "efficientformerv2_s0": (224, {}),
    "convnext_femto": (64, {}),
}


def measure_norms(module: nn.Module, pictures: torch.Tensor) -> None:
    """Gives batch norms the statistics of what they see."""
    norms = [each for each in module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        module(pictures)
    module.eval()


def row(name: str, count: int) -> str:
    """Adapts and quantises one model."""
    size, options = MODELS[name]
    start = time.monotonic()
    torch.manual_seed(0)
    module = build(
        {"builder": "timm:create_model", "options": {"model_name": name, "num_classes": CLASSES, **options}}, name, True
    )
    contract = contract_of(module, [f"class {i}" for i in range(CLASSES)], {"size": size})
    folder = free_pictures(contract).spread(2 * count)
    pictures = torch.cat([picture for picture, _ in batches(folder, contract, 1)])
    mean, std = (torch.tensor(value).reshape(1, 3, 1, 1) for value in (contract.mean, contract.std))
    measure_norms(module, (pictures / 255 - mean) / std)
    checkpoint = adapt(module, contract)
    deployed = Deployed(checkpoint.model, contract).eval()
    float_layers = default_float_layers(deployed.model)
    with contextlib.redirect_stdout(sys.stderr), torch.no_grad():  # NNCF's progress
        program = quantised(deployed, pictures[::2].split(1)).module()
        reference, logits = deployed(pictures[1::2]), torch.cat([program(picture) for picture in pictures[1::2].split(1)])
    traced = checkpoint.model.deploy()
    int8 = f"{len(quantizable(traced, float_layers))} + {len(quantizable_additions(traced, float_layers))}"
    rest = in_float(float_program(checkpoint), float_layers, float_layers)
    why = "; ".join(f"{each.what} {each.count}: {each.reason}" for each in rest)
    top1 = int((logits.argmax(1) == reference.argmax(1)).sum())
    notes = "; ".join(checkpoint.config["adapted"]["notes"])
    figures = f"{sqnr(reference, logits):.1f} dB | {top1} of {len(logits)}"
    return f"| {name} | {size} | {figures} | {int8} | {why} | {notes} | {time.monotonic() - start:.0f} s |"


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    p.add_argument("--pictures", type=int, default=16, help="to calibrate on, and as many to judge")
    arguments = p.parse_args()
    for name in arguments.models:
        try:
            print(row(name, arguments.pictures), flush=True)
        except UserError as error:
            print(f"| {name} | {error} |", flush=True)


if __name__ == "__main__":
    main()
