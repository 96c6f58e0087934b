"""What attention costs by resolution and by block: artifacts of random weights, which change no latency, and their times.

Used by benchmarks/less_attention.py. Ranges of the int8 form are those of a few free pictures.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from artifacts import CLASSES, Row, contract_of, made, pictures, save_onnx, save_pte
from rich.console import Console
from rich.progress import track
from torch.export import ExportedProgram
from torch.nn import functional

from lavit_edge import create_model
from lavit_edge.doctor.smallest import int8_form
from lavit_edge.models.classifier import Classifier
from lavit_edge.models.deployed import Deployed
from lavit_edge.models.lavit import LaViT
from lavit_edge.quantize.program import tidy
from lavit_edge.quantize.scheme import default_float_layers, quantized_model

SIZES = (160, 224, 320, 448)
RUNTIMES: dict[str, Callable[[ExportedProgram, Path], None]] = {"ExecuTorch": save_pte, "ONNX Runtime": save_onnx}
PRECISIONS = ("fp32", "int8")
REPEATED = 3  # blocks whose time is divided by their number
# A stage alone, of lit_nano's widths and pvt_nano's FFN or of lavit_small, tokens from 4x4 patches: what it does at 224 pixels it
# does here at 4 x its grid.
STAGES: dict[str, tuple[int, dict[str, Any]]] = {  # title -> pixels of the picture for one token's side, options
    "stage 3, keys reduced": (16, dict(dims=(160,), heads=(5,), sr_ratios=(2,), convolutional=True)),
    "stage 3, square": (16, dict(dims=(160,), heads=(5,), sr_ratios=(1,), convolutional=True)),
    "stage 4, square": (32, dict(dims=(256,), heads=(8,), sr_ratios=(1,), convolutional=True)),
    "small's stage 3, keys reduced": (16, dict(dims=(320,), heads=(5,), sr_ratios=(2,))),
    "small's stage 3, square": (16, dict(dims=(320,), heads=(5,), sr_ratios=(1,))),
}
FORMS = ("vanilla", "less, literal", "less, factored")


@torch.no_grad()
def programs(model: Classifier, pixels: int) -> dict[str, ExportedProgram]:
    """Precision -> program."""
    seen = functional.interpolate(torch.cat(pictures(224)[:2]), (pixels, pixels), mode="area")
    deployed = Deployed(model.eval(), contract_of(224)).eval()  # of the contract only the normalisation
    exported = {"fp32": torch.export.export(deployed, (seen[:1],))}
    tensors, float_layers = int8_form(deployed, seen), default_float_layers(deployed.model)
    deployed.model = quantized_model(deployed.model, tensors, float_layers, "int8")
    graph = tidy(torch.export.export(deployed, (seen[:1],)).module(check_guards=False))
    return exported | {"int8": torch.export.export(graph, (seen[:1],))}


def artifacts(
    title: str, pixels: int, make: Callable[[], Classifier], work: Path, precisions: Iterable[str] = PRECISIONS
) -> Iterator[Row]:
    """A row for each precision and runtime; made in ``work`` unless they are there."""

    @functools.cache
    def exported() -> dict[str, ExportedProgram]:
        torch.manual_seed(0)
        return programs(make(), pixels)

    for precision, (runtime, save) in itertools.product(precisions, RUNTIMES.items()):

        def write(path: Path, precision: str = precision, save: Callable[[Any, Path], None] = save) -> None:
            save(exported()[precision], path)

        yield made(Row(title, pixels, precision, runtime, "lavit-edge" if precision == "int8" else ""), work, write)


def by_resolution(
    names: Iterable[str], sizes: Iterable[int], precisions: Iterable[str], work: Path, console: Console
) -> dict[int, list[Row]]:
    """Image size -> the rows of all models."""
    found: dict[int, list[Row]] = {size: [] for size in sizes}
    for name, size in track(list(itertools.product(names, found)), "exporting sizes", console=console, transient=True):
        make = functools.partial(create_model, name, num_classes=CLASSES, image_size=size)
        found[size] += artifacts(name, size, make, work, precisions)
    return found


def stage(title: str, pixels: int, form: str, depth: int) -> tuple[int, Callable[[], Classifier]]:
    """The size of its input, and a maker of a stage of ``depth`` blocks: one vanilla, then blocks of a form."""
    patch, options = STAGES[title]
    size = 4 * (pixels // patch)
    options = dict(options, mlp_ratios=(4,), attention_residual=(False,), image_size=size)
    options |= dict(num_vanilla=(depth if form == "vanilla" else 1,), factored=form == "less, factored")
    return size, lambda: LaViT(depths=(depth,), num_classes=CLASSES, **options)


def by_block(sizes: Iterable[int], work: Path, console: Console) -> list[tuple[int, str, str, list[Row], list[Row]]]:
    """Image size, stage and form -> the rows of one vanilla block, and those of one with ``REPEATED`` of the form behind it."""
    found, short = [], {}
    cases = list(itertools.product(sizes, STAGES, FORMS))
    for pixels, title, form in track(cases, "exporting blocks", console=console, transient=True):
        name = f"{title}, {pixels}"
        size, make = stage(title, pixels, "vanilla", 1)
        if name not in short:
            short[name] = list(artifacts(f"{name}, one block", size, make, work))
        _, make = stage(title, pixels, form, 1 + REPEATED)
        found.append((pixels, title, form, short[name], list(artifacts(f"{name}, {form}", size, make, work))))
    return found
