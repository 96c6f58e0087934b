"""What attention contributes to a trained net: how far its logits move when attention says the same of every picture.

    python benchmarks/attention_used.py lavit_mobile_s_imagenette160 --data IMAGENETTE

Attention that is computed, exported and timed may still do nothing: a residual branch can learn to be a constant, and neither
accuracy nor parity shows it. So the net is run with less of it, in fp32; where the logits stay, what was taken said nothing:

- a layer's output, then that of all layers, is held at its mean over pictures and places, which another layer's bias could add;
- every map is its mean over pictures: do maps depend on the picture, or are they a fixed mixing of places?
- every map is even: does it matter where attention looks, or is it the mean over places?
- every place sees itself alone, where maps are square: does anything move between places? (A 1x1 convolution moves nothing.)

For any of this package's models.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tables import show
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lavit_edge.checkpoint import find_checkpoint
from lavit_edge.cli import Parser, run_command
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.evaluate import batches, sqnr

BATCH = 50


@dataclass(frozen=True)
class Used:
    """A net with less of its attention.

    Attributes:
        without: what was taken from it: the path of an attention layer whose output is a constant, or words.
        top1: share of pictures that are right.
        same_top1: share that keep the label of the untouched net.
        sqnr: of the logits against the untouched net's, in dB.
    """

    without: str
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


Instead = Callable[[int, Tensor], Tensor]  # turn of a map in the net, (B, H, N, M) -> the same shape


class Maps(TorchFunctionMode):
    """While it lasts, each map that softmax gives, of ``size`` pictures, goes through a function."""

    def __init__(self, instead: Instead, size: int) -> None:
        super().__init__()
        self.instead, self.size = instead, size
        self.turns = itertools.count()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.__name__ != "softmax":
            return result
        found = result.reshape(self.size, -1, *result.shape[-2:])
        return self.instead(next(self.turns), found).reshape(result.shape)


@torch.no_grad()
def used(model: nn.Module, pictures: list[Tensor], targets: Tensor) -> list[Used]:
    """The untouched net first, then with less and less of its attention.

    Args:
        pictures: batches ``(B, 3, size, size)`` as the model takes them.
        targets: classes of all pictures.
    """
    layers = attention_layers(model)
    sums: dict[str, Tensor] = {}
    maps: dict[int, Tensor] = {}

    def add_up(path: str, output: Tensor) -> Tensor:
        places = (2, 3) if output.ndim == 4 else (1,)
        sums[path] = sums.get(path, 0) + output.mean(places, keepdim=True).sum(0, keepdim=True)
        return output

    def logits(instead: Instead) -> Tensor:
        found = []
        for batch in pictures:
            with Maps(instead, len(batch)):
                found.append(model(batch))
        return torch.cat(found)

    def add_up_maps(turn: int, found: Tensor) -> Tensor:
        maps[turn] = maps.get(turn, 0) + found.sum(0)
        return found

    def as_found(turn: int, found: Tensor) -> Tensor:
        return found

    def mean_map(turn: int, found: Tensor) -> Tensor:
        return (maps[turn] / len(targets)).expand_as(found)

    def even(turn: int, found: Tensor) -> Tensor:
        return torch.full_like(found, 1 / found.shape[-1])

    def itself(turn: int, found: Tensor) -> Tensor:
        return torch.eye(found.shape[-1]).expand_as(found)

    with outputs(layers, add_up):
        reference = logits(add_up_maps)

    def judged(name: str, paths: Iterable[str] = (), instead: Instead = as_found) -> Used:
        with outputs({path: layers[path] for path in paths}, lambda path, output: (sums[path] / len(targets)).expand_as(output)):
            found = logits(instead)
        labels = found.argmax(1)
        right, same = (float((labels == wanted).double().mean()) for wanted in (targets, reference.argmax(1)))
        return Used(name, right, same, float(sqnr(reference, found)))

    square = all(found.shape[1] == found.shape[2] for found in maps.values())
    return [
        judged("nothing"),
        *(judged(path, [path]) for path in layers),
        judged("all attention", layers),
        judged("maps of the picture's own", instead=mean_map),
        judged("maps that are uneven", instead=even),
        *([judged("what other places say", instead=itself)] if square else []),
    ]


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
    lines = [["without", "top-1 %", "same top-1 %", "SQNR dB"]]
    for row in rows:
        lines.append(
            [row.without.removeprefix("model."), f"{100 * row.top1:.1f}", f"{100 * row.same_top1:.1f}", f"{row.sqnr:.1f}"]
        )
    show(f"{args.checkpoint} with less of its attention, {len(targets)} pictures", lines, Console())
    print("Where the SQNR is beyond int8's own, int8 rounds away more than that part says.")
    return 0


if __name__ == "__main__":
    run_command(main)
