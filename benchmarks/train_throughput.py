"""How fast LaViT trains beside other transformers: one device, one run, in turns.

    python benchmarks/train_throughput.py --batch-size 256 --image-size 224 --data IMAGENETTE

A step is forward, backward and fused AdamW on uint8 pictures that lie on the device; bf16 autocast on CUDA, fp32 on a CPU. The
models are timed in turns, a block of steps each, so that whatever disturbs the machine disturbs all; figures are medians of the
blocks. FLOPs are three times those of a forward pass, a multiply-add is two. The other models are timm's, and left out, with a
line that says so, where timm cannot be imported. With --data, the first model is also trained from pictures: how long do its
steps wait for the folder's loader, and how long for the cache's? A block begins behind the first batch, when the workers have
started.

Run on a CPU; never run on CUDA.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lavit_edge.cli import run_command
from lavit_edge.contract import IMAGENET_MEAN, IMAGENET_STD
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError, one_line
from lavit_edge.models import create_model, list_models
from lavit_edge.train.cache import CachedSource, open_cache
from lavit_edge.train.meter import Meter, training_flops
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.source import FolderSource
from lavit_edge.train.transfer import Transfer
from lavit_edge.train.world import World, join

OTHERS = ("deit_small_patch16_224", "pvt_v2_b1", "swin_tiny_patch4_window7_224")  # timm's names
MEASURE = "pvt_v2_b1"  # whose GFLOP/s the others' are divided by
CLASSES = 1000
ROUNDS = 5
HEADERS = {
    "img_per_s": "img/s", "step_ms": "ms/step", "gflop_per_picture": "GFLOP/img", "gflop_per_s": "GFLOP/s",
    "of_own_eager": "x eager", f"gflop_per_s_of_{MEASURE}": f"GFLOP/s, x {MEASURE}", "peak_mb": "peak MB",
    "host_img_per_s": "img/s, host", "device_img_per_s": "on the device", "trained_img_per_s": "trained", "wait": "share waited",
}  # fmt: skip


@dataclass
class Row:
    """One model in one mode; ``step`` trains on uint8 RGB ``(B, S, S, 3)`` and class indices ``(B,)``."""

    name: str
    mode: str
    step: Callable[[Tensor, Tensor], None]
    gflop: float  # of a training step, for one picture
    resident: Callable[[], int]  # bytes of weights and moments
    times: list[float] = field(default_factory=list)  # seconds of a step, one for each block
    peak: int = 0  # bytes


def create(name: str, size: int) -> nn.Module:
    """A model with random weights. Raises ImportError where timm is needed and cannot be used."""
    if name in list_models():
        return create_model(name, num_classes=CLASSES, image_size=size)
    if name not in OTHERS:
        raise UserError(f"--models {name}: choose from {', '.join([*list_models(), *OTHERS])}")
    try:
        import timm
    except Exception as error:  # a torchvision of another torch raises RuntimeError
        raise ImportError(f"timm cannot be imported ({one_line(str(error))})") from error
    sized = {} if name.startswith("pvt") else {"img_size": size}  # PVTv2 takes any
    return timm.create_model(name, num_classes=CLASSES, **sized)


def rows_of(name: str, modes: list[str], size: int, device: torch.device) -> list[Row]:
    """Eager and compiled share weights and optimiser."""
    model = create(name, size).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    with sdpa_kernel(SDPBackend.MATH):  # the counter does not know every fused attention
        gflop = training_flops(model, size) / 1e9
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    mean, std = (torch.tensor(x, device=device).view(1, 3, 1, 1) * 255 for x in (IMAGENET_MEAN, IMAGENET_STD))

    def resident() -> int:
        moments = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
        return sum(x.numel() * x.element_size() for x in [*model.parameters(), *model.buffers(), *moments])

    def stepping(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], None]:
        def step(pixels: Tensor, targets: Tensor) -> None:
            x = (pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last) - mean) / std
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = forward(x)
            F.cross_entropy(logits.float(), targets).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    return [Row(name, mode, stepping(torch.compile(model) if mode == "compiled" else model), gflop, resident) for mode in modes]


def time_in_turns(
    rows: list[Row], pixels: Tensor, targets: Tensor, seconds: float, limit: float, say: Callable[[str], None]
) -> list[Row]:
    """Fills in times and peaks; returns the rows that could run. ``seconds`` are timed for each, and none is compiled when
    compiling those before it took ``limit`` seconds."""
    device, start = pixels.device, time.perf_counter()
    able: list[Row] = []
    for row in rows:  # compiles, and shows how many steps a block has
        if time.perf_counter() - start > limit:
            say(f"{row.name}, {row.mode}, left out: --limit is over")
            continue
        try:
            row.step(pixels, targets)
            row.times = [_time(row, 1, pixels, targets)]
            able.append(row)
        except Exception as error:  # no compiler, an operator that it does not know, too little memory
            say(f"{row.name}, {row.mode}, left out: {type(error).__name__}: {one_line(str(error))[:200]}")
    steps = [max(1, round(seconds / ROUNDS / row.times[0])) for row in able]
    for row in able:
        row.times = []
    for _ in range(ROUNDS):
        for row, count in zip(able, steps, strict=True):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
                others = torch.cuda.memory_allocated(device) - row.resident()
            row.times.append(_time(row, count, pixels, targets))
            if device.type == "cuda":
                row.peak = max(row.peak, torch.cuda.max_memory_allocated(device) - others)
    return able


def _time(row: Row, steps: int, pixels: Tensor, targets: Tensor) -> float:
    """Seconds of a step."""
    _wait(pixels.device)
    start = time.perf_counter()
    for _ in range(steps):
        row.step(pixels, targets)
    _wait(pixels.device)
    return (time.perf_counter() - start) / steps


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def figures(rows: list[Row], batch: int) -> list[dict[str, Any]]:
    """What is printed of each row; None where there is nothing to compare with."""
    rate = {(row.name, row.mode): batch / statistics.median(row.times) for row in rows}
    work = {(row.name, row.mode): rate[row.name, row.mode] * row.gflop for row in rows}
    return [
        {
            "model": row.name,
            "mode": row.mode,
            "img_per_s": rate[key],
            "step_ms": 1e3 * batch / rate[key],
            "gflop_per_picture": row.gflop,
            "gflop_per_s": work[key],
            "of_own_eager": rate[key] / rate[row.name, "eager"] if (row.name, "eager") in rate else None,
            f"gflop_per_s_of_{MEASURE}": work[key] / work[MEASURE, row.mode] if (MEASURE, row.mode) in work else None,
            "peak_mb": row.peak / 1e6 if row.peak else None,
        }
        for row in rows
        for key in [(row.name, row.mode)]
    ]


def loading(row: Row, data: Path, batch: int, size: int, workers: int, seconds: float, world: World) -> list[dict[str, Any]]:
    """Folder and cache, in turns: pictures a second that come to the host, that are ready on the device, that are trained on,
    and the share of the training time in which the device had none."""
    pictures, recipe = PictureFolder(data, "train"), Recipe(image_size=size, batch_size=batch)
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(sys.stderr):  # stdout may be for JSON
            file = open_cache(Path(folder), pictures, recipe, world, workers)
        sources = {
            "folder": FolderSource(pictures, recipe, world, workers),
            "cache": CachedSource(pictures, recipe, world, workers, file),
        }
        blocks: dict[str, list[list[float]]] = {name: [] for name in sources}
        for number in range(ROUNDS):
            for name, source in sources.items():
                kinds = [_block(source, number, kind, row, seconds / ROUNDS, world) for kind in ("host", "device", "trained")]
                blocks[name].append([*(rate for rate, _ in kinds), kinds[-1][1]])
    columns = ("host_img_per_s", "device_img_per_s", "trained_img_per_s", "wait")
    return [
        {"source": name, **{c: statistics.median(v) for c, v in zip(columns, zip(*rows, strict=True), strict=True)}}
        for name, rows in blocks.items()
    ]


def _block(source: FolderSource, epoch: int, kind: str, row: Row, seconds: float, world: World) -> tuple[float, float]:
    """Pictures a second and the share of waiting, from the second batch of an epoch to its end, or for ``seconds``."""
    batches, meter, transfer = source.batches(epoch, 0, None), Meter(), Transfer(world.device)
    next(batches)
    _wait(world.device)
    meter.start()
    while meter.steps < source.steps() - 1 and (not meter.steps or time.monotonic() - meter.started < seconds):
        batch = meter.waiting(batches)
        if kind != "host":
            pixels, targets, _, *chance = transfer(batch)
            pixels = source.augment(pixels, *chance)
            if kind == "trained":
                row.step(pixels, targets)
        meter.pictures += len(batch[0])
        meter.steps += 1
    _wait(world.device)
    took = time.monotonic() - meter.started
    return meter.pictures / took, meter.waited / took


def show(title: str, rows: list[dict[str, Any]], console: Console) -> None:
    table = Table(title=title)
    for number, name in enumerate(rows[0]):
        table.add_column(HEADERS.get(name, name), justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(_short, row.values()))
    console.print(table)


def _short(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--models", nargs="+", default=["lavit_mobile_s", "lavit_tiny", *OTHERS], help="default: %(default)s")
    parser.add_argument("--modes", nargs="+", choices=("eager", "compiled"), default=["eager", "compiled"])
    parser.add_argument("--batch-size", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--image-size", type=int, default=224, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=20, help="timed for each row; default: %(default)s")
    parser.add_argument("--limit", type=float, default=3600, help="seconds of compiling after which no more models are begun")
    parser.add_argument("--data", type=Path, help="folder with train/<class>/: time the loading of its pictures too")
    parser.add_argument("--workers", type=int, default=2, help="of the loading; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on stdout, tables on stderr")
    arguments = parser.parse_args()
    if arguments.batch_size < 1 or arguments.workers < 0 or arguments.seconds <= 0:
        raise UserError("--batch-size takes 1 or more, --workers 0 or more, --seconds more than 0")
    world, console = join(arguments.device), Console(stderr=arguments.json, soft_wrap=True, width=130)
    device, batch, size = world.device, arguments.batch_size, arguments.image_size
    torch.manual_seed(0)
    rows: list[Row] = []
    for name in arguments.models:
        try:
            rows += rows_of(name, arguments.modes, size, device)
        except ImportError as error:
            console.print(f"{name} left out: {error}", markup=False)
    pixels = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8, device=device)
    targets = torch.randint(0, CLASSES, (batch,), device=device)
    say = functools.partial(console.print, markup=False)
    rows = time_in_turns(rows, pixels, targets, arguments.seconds, arguments.limit, say)
    if not rows:
        raise UserError("none of the models could be run")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    result: dict[str, Any] = {"device": where, "torch": torch.__version__, "batch_size": batch, "image_size": size}
    result["training"] = figures(rows, batch)
    show(f"{where}, batch {batch}, {size} px, medians of {ROUNDS} blocks", result["training"], console)
    if arguments.data:
        first = rows[0]
        result["loading"] = loading(first, arguments.data, batch, size, arguments.workers, arguments.seconds, world)
        show(f"{first.name}, {first.mode}, {arguments.workers} workers", result["loading"], console)
    if arguments.json:
        print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    run_command(main)
