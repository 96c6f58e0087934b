"""Who is quick in LiteRT: nets of this package and of timm, in int8 by this package, beside int8 files that others have made.

    python benchmarks/litert_peers.py PEER.tflite ... --litert litert/bin/python [--models lavit_mobile_s ...] [--work DIR]

Peers are any quantised ``.tflite`` that take one square picture, as those of google-coral/test_data do. Each model is made at the
size of each peer, with 1000 classes and random weights, which change no latency, calibrated on some of the free pictures. All of
a run take turns, a block of calls each, on one thread, in processor time; what counts is the median over that of the first peer
of the same size. Each is given noise of the type that it takes. LiteRT's converter has an environment of its own (README.md),
whose Python is ``--litert``; ``--models`` without a name times the files alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from all_formats import convert_elsewhere
from artifacts import contract_of, pictures, quantised
from entrants import ENTRANTS, TIMM, check_names, register_entrants
from int8_vs_fp32 import time_in_turns
from pareto import random_model
from rich.console import Console
from tables import Lines, markdown

from lavit_edge.artifact import tflite
from lavit_edge.cli import run_command
from lavit_edge.errors import UserError
from lavit_edge.verdict.read import read

CLASSES = 1000
MODELS = ("lavit_mobile_s", "MobileNetV4-conv-small", "MobileNetV2")


@dataclass
class Entry:
    """A file that is timed.

    Attributes:
        pixels: the side of the picture that it takes.
        mmacs: 1e6 multiply-adds; None where they cannot be read.
        ms: median of a call's processor time.
    """

    name: str
    int8_by: str
    path: Path
    pixels: int
    run: Callable[[], object]
    mmacs: float | None = None
    ms: float = 0.0


def opened(name: str, int8_by: str, path: Path) -> Entry:
    """Raises :class:`UserError` as :func:`tflite.interpreter`, and where it does not take one square picture."""
    run, pixels = tflite.on_noise(tflite.interpreter(path, 1), path)
    try:
        mmacs: float | None = sum(op.macs for op in read(path)[0].ops) / 1e6
    except UserError:
        mmacs = None
    return Entry(name, int8_by, path, pixels, run, mmacs)


@torch.no_grad()
def made(name: str, pixels: int, litert: Path, work: Path) -> Entry:
    """A model as an int8 ``.tflite``; made in ``work`` unless it is there."""
    path = work / f"{name}-{pixels}.tflite"
    if not path.exists():
        program = quantised(random_model(name, pixels, CLASSES), pictures(pixels))
        convert_elsewhere(litert, "litert", program, contract_of(pixels, CLASSES), path)
    return opened(f"{name} (timm)" if name in TIMM else name, "lavit-edge", path)


def table(entries: list[Entry]) -> Lines:
    """A line for each, by size and time. Peers come first in ``entries``."""
    first = {entry.pixels: entry for entry in reversed(entries)}
    lines = [["model", "int8 by", "px", "MMAC", "MB", "time, to the first peer of its size"]]
    for entry in sorted(entries, key=lambda entry: (entry.pixels, entry.ms)):
        mmacs = "-" if entry.mmacs is None else f"{entry.mmacs:.0f}"
        ratio = f"{entry.ms / first[entry.pixels].ms:.2f}"
        size = f"{entry.path.stat().st_size / 1e6:.1f}"
        lines.append([entry.name, entry.int8_by, str(entry.pixels), mmacs, size, ratio])
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="+", type=Path, metavar="PEER")
    parser.add_argument("--models", nargs="*", default=MODELS, help=f"of {', '.join(ENTRANTS)}")
    parser.add_argument("--sizes", nargs="*", type=int, help="at which models are made; by default all that peers have")
    parser.add_argument("--litert", type=Path, metavar="PYTHON", help="of the environment with the extra litert")
    parser.add_argument("--rounds", type=int, default=20, help="blocks of five calls each")
    parser.add_argument("--work", type=Path, help="keep artifacts in this folder; those that are in it are not made again")
    arguments = parser.parse_args()
    check_names(arguments.models)
    if arguments.models and arguments.litert is None:
        raise UserError("--litert names the Python that converts; or give --models without a name")
    register_entrants()
    torch.set_num_threads(1)
    entries = [opened(path.stem, "lavit-edge" if tflite.entries(path) else "its maker", path) for path in arguments.peers]
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for pixels in sorted({entry.pixels for entry in entries} & set(arguments.sizes or (entry.pixels for entry in entries))):
            for name in arguments.models:
                entries.append(made(name, pixels, arguments.litert, work))
                print(f"{name} at {pixels} pixels is there", file=sys.stderr, flush=True)
        runs = dict(enumerate(entry.run for entry in entries))
        for index, times in time_in_turns(runs, range(arguments.rounds), time.process_time).items():
            entries[index].ms = median(times)
        title = "LiteRT, one thread, int8: medians of processor time in turns"
        Console(highlight=False, soft_wrap=True).print(markdown(title, table(entries)), markup=False)
    return 0


if __name__ == "__main__":
    run_command(main)
