"""What attention contributes to a trained net: how far its logits move when attention says the same of every picture.

    python benchmarks/attention_used.py lavit_mobile_s_imagenette160 --data IMAGENETTE

Attention that is computed, exported and timed may still do nothing: a residual branch can learn to be a constant, and neither
accuracy nor parity shows it. So the output of an attention layer is replaced by its mean over pictures and places, channel by
channel, which another layer's bias could as well have added: of each layer alone, then of all. Where the logits stay, the layer
tells pictures apart no more than a bias does. In fp32, for any of this package's models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tables import show
from torch import Tensor, nn

from lavit_edge.checkpoint import find_checkpoint
from lavit_edge.cli import Parser, run_command
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.evaluate import batches, sqnr

BATCH = 50


@dataclass(frozen=True)
class Used:
    """A net with an attention layer's output held constant.

    Attributes:
        layer: path of the attention layer; of the untouched net and of all layers, a word.
        top1: share of pictures that are right.
        same_top1: share that keep the label of the untouched net.
        sqnr: of the logits against the untouched net's, in dB.
    """

    layer: str
    top1: float
    same_top1: float
    sqnr: float


def attention_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Path -> module of each. Raises :class:`UserError` where there is none."""
    found = {path: module for path, module in model.named_modules() if path.endswith(".attention")}
    if not found:
        raise UserError("this model has no attention; name one that has")
    return found


@contextmanager
def outputs(layers: dict[str, nn.Module], through: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """While it lasts, each layer's output goes through a function: maps ``(B, C, g, g)`` or tokens ``(B, N, C)``."""

    def hook(path: str) -> Callable[[nn.Module, Any, Any], Any]:
        def replaced(layer: nn.Module, inputs: Any, result: Any) -> Any:
            if isinstance(result, tuple):  # less attention gives its scores, too
                return (through(path, result[0]), *result[1:])
            return through(path, result)

        return replaced

    handles = [layer.register_forward_hook(hook(path)) for path, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def used(model: nn.Module, pictures: list[Tensor], targets: Tensor) -> list[Used]:
    """The untouched net, each layer constant, all of them constant.

    Args:
        pictures: batches ``(B, 3, size, size)`` as the model takes them.
        targets: classes of all pictures.
    """
    layers = attention_layers(model)
    sums: dict[str, Tensor] = {}

    def add_up(path: str, output: Tensor) -> Tensor:
        places = (2, 3) if output.ndim == 4 else (1,)
        sums[path] = sums.get(path, 0) + output.mean(places, keepdim=True).sum(0, keepdim=True)
        return output

    def logits() -> Tensor:
        return torch.cat([model(batch) for batch in pictures])

    with outputs(layers, add_up):
        reference = logits()

    def held(name: str, paths: list[str]) -> Used:
        with outputs({path: layers[path] for path in paths}, lambda path, output: (sums[path] / len(targets)).expand_as(output)):
            found = logits()
        labels = found.argmax(1)
        right, same = (float((labels == wanted).double().mean()) for wanted in (targets, reference.argmax(1)))
        return Used(name, right, same, float(sqnr(reference, found)))

    return [held("none", []), *(held(path, [path]) for path in layers), held("all", list(layers))]


def parser() -> Parser:
    p = Parser(prog="benchmarks/attention_used.py", description="What attention contributes to a trained net.")
    p.add_argument("checkpoint", help="a folder, or the name of a bundled one; its fp32 form is judged")
    p.add_argument("--data", type=Path, required=True, help="folder with val/<class>/")
    p.add_argument("--pictures", type=int, default=500, help="evenly over the classes; default: %(default)s")
    return p


def main() -> int:
    args = parser().parse_args()
    checkpoint = find_checkpoint(args.checkpoint)
    folder = PictureFolder(args.data, "val", checkpoint.contract.labels).spread(args.pictures)
    found = list(batches(folder, checkpoint.contract, BATCH))
    targets = torch.tensor([target for _, of_batch in found for target in of_batch])
    rows = used(Deployed(checkpoint.model, checkpoint.contract).eval(), [pictures for pictures, _ in found], targets)
    lines = [["constant", "top-1 %", "same top-1 %", "SQNR dB"]]
    for row in rows:
        lines.append([row.layer.removeprefix("model."), f"{100 * row.top1:.1f}", f"{100 * row.same_top1:.1f}", f"{row.sqnr:.1f}"])
    show(f"{args.checkpoint}: attention's output held constant, {len(targets)} pictures", lines, Console())
    print("Of layers whose SQNR is beyond int8's own, int8 rounds away more than they say.")
    return 0


if __name__ == "__main__":
    run_command(main)
