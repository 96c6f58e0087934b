"""Where an artifact parts from its program: block by block, layer by layer, in the artifact's own runtime.

Rounding flips codes, and flipped codes flip others: behind 20 quantisers in series a sound artifact is 27 to 40 dB from its
program (docs/parity.md), so how far it has drifted says nothing about the place. Therefore each layer of the program is given
what the artifact's own layer was given, and the results are compared. What a layer adds by itself is then all that is seen, and
sound layers and defects are far apart.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.export import ExportedProgram

from lavit_edge.artifact.runners import open_artifact, to_tensor
from lavit_edge.metrics import decibels
from lavit_edge.parity.agreement import Gates
from lavit_edge.parity.forms import one_thread
from lavit_edge.parity.locate_points import Feed, Point, Reference
from lavit_edge.parity.locate_values import RUNTIMES, open_values

# An int8 value: another order of additions moves it by one step where it falls on a tie. Measured on the bundled model,
# 4 pictures of Imagenette, worst of 135 values: 1.0 step at most and 0.02 in the root mean square in ExecuTorch and ONNX Runtime,
# 1.05 and 0.17 in fp16 (0.24 in a tiny model). Codes of a grid that is a little off round independently: 0.41. A wrong scale
# moves many steps.
MOST_STEPS, MOST_RMS_STEPS = 1.5, 0.35
# Stored scales are float32, or fp16 in a Core ML program: 2^-11 off at most
SCALE_TOLERANCE = 2.0**-10
# Roundings of two programs in fp16 that are independent are twice the noise of one apart
HALF_MARGIN = 3.0


@dataclass(frozen=True)
class Layer:
    """One value of an artifact against the program's, computed from the artifact's own inputs.

    Attributes:
        sqnr_db: over all pictures.
        steps, rms_steps: largest and root mean square difference, in int8 steps. A quantised value has a step, its scale in the
            program; that of a float value is 1/255 of its range over the pictures.
        half_steps: the largest where it is the program that rounds what this layer is given, its stored tensors and its result to
            fp16; 0 for an artifact in fp32. The tolerance is wider by that.
        scale, stored_scale: of the program and of the artifact, for an int8 value.
        bad: it differs by more than its tolerance.
    """

    block: str
    layer: str
    op: str
    sqnr_db: float
    steps: float
    rms_steps: float
    half_steps: float
    scale: float | None
    stored_scale: float | None
    bad: bool


@dataclass(frozen=True)
class Block:
    """The last value of a block.

    Attributes:
        alone_db: SQNR with the block's inputs taken from the artifact: what the block adds.
        so_far_db: SQNR against the program on its own: what has gathered up to here.
        layers: how many of its values were compared.
        bad: how many of them differ by more than their tolerance.
    """

    block: str
    alone_db: float
    so_far_db: float
    layers: int
    bad: int


@dataclass
class Located:
    """
    Attributes:
        notes: what there is to know besides, one sentence each.
    """

    artifact: str
    runtime: str
    pictures: int
    blocks: list[Block] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def first(self) -> Layer | None:
        """The first layer, in the order of the program, that differs by more than its tolerance."""
        return next((layer for layer in self.layers if layer.bad), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is infinite (the SQNR of equal values) or not a number becomes null."""
        document = {**asdict(self), "first": asdict(self.first) if self.first else None}
        for row in [*document["blocks"], *document["layers"], document["first"] or {}]:
            for key, value in row.items():
                if isinstance(value, float) and not math.isfinite(value):
                    row[key] = None
        return document


@one_thread()
def locate(
    program: ExportedProgram, artifacts: list[Path], pictures: Iterable[np.ndarray], gates: Gates, console: Console
) -> list[Located]:
    """Compares every layer of every artifact.

    Args:
        program: that the artifacts were made from.
        pictures: uint8 ``(size, size, 3)`` each.
        gates: ``float_sqnr`` and ``float16_sqnr`` are the tolerances of float values.

    Raises:
        UserError: an artifact is not made from this program.
    """
    reference = Reference(program)
    with tempfile.TemporaryDirectory() as folder, console.status("opening the artifacts") as status:
        compared = [_Comparison(path, reference, Path(folder)) for path in artifacts]
        for number, picture in enumerate(pictures, 1):
            status.update(f"comparing, picture {number}")
            tensor = torch.from_numpy(to_tensor(picture))
            unaided = reference.run(tensor, {}, "nothing")
            for comparison in compared:
                comparison.add(picture, tensor, unaided)
    return [comparison.result(gates) for comparison in compared]


class _Tally:
    """Differences of one value, gathered over pictures.

    Args:
        centre: the value is logits, and an offset of all classes is no signal.
    """

    def __init__(self, centre: bool) -> None:
        self.centre = centre
        self.signal = self.noise = self.largest = 0.0
        self.count, self.low, self.high = 0, math.inf, -math.inf

    def add(self, reference: Tensor, other: Tensor) -> None:
        difference = (reference - other).double()
        signal = reference.double()
        self.signal += float((signal - signal.mean(-1, keepdim=True) if self.centre else signal).square().sum())
        self.noise += float(difference.square().sum())
        self.largest = float(np.maximum(self.largest, float(difference.abs().max())))  # keeps NaN
        self.count += reference.numel()
        self.low, self.high = min(self.low, float(reference.min())), max(self.high, float(reference.max()))

    @property
    def sqnr_db(self) -> float:
        return decibels(self.signal, self.noise)

    @property
    def rms(self) -> float:
        return math.sqrt(self.noise / self.count) if self.count else 0.0


def _gather(tallies: dict[str, _Tally], found: dict[str, Tensor], values: dict[str, Tensor], logits: str) -> None:
    for name, value in values.items():
        tallies.setdefault(name, _Tally(name == logits)).add(found[name], value)


class _Comparison:
    """One artifact against the program."""

    def __init__(self, path: Path, reference: Reference, folder: Path) -> None:
        self.path, self.reference = path, reference
        self.run = open_artifact(path, threads=1)
        self.values = open_values(path, reference, folder)
        feeds: tuple[Feed, ...] = ("layers", "blocks", "nothing")
        self.tallies: dict[Feed, dict[str, _Tally]] = {feed: {} for feed in feeds}
        self.half: dict[str, _Tally] = {}  # what fp16 by itself costs each value
        self.logits = _Tally(True)  # of the artifact itself, against the copy whose values are seen
        self.pictures = 0

    def add(self, picture: np.ndarray, tensor: Tensor, unaided: dict[str, Tensor]) -> None:
        self.pictures += 1
        logits = torch.from_numpy(self.run(picture))[None]
        seen = self.values.run(picture)
        self.logits.add(seen[self.reference.logits], logits)
        for feed, tallies in self.tallies.items():
            found = unaided if feed == "nothing" else self.reference.run(tensor, seen, feed)
            _gather(tallies, found, seen, self.reference.logits)
            if feed == "layers" and self.path.suffix == ".mlpackage":
                half = self.reference.run(tensor, seen, feed, half=True)
                _gather(self.half, found, {name: half[name] for name in seen}, self.reference.logits)

    def result(self, gates: Gates) -> Located:
        result = Located(self.path.name, RUNTIMES[self.path.suffix], self.pictures)
        if self.logits.noise != 0:  # also when it is not a number
            result.notes.append(f"taking values out moved its logits ({self.logits.sqnr_db:.1f} dB): other kernels may have run")
        blocks: dict[str, list[tuple[str, Layer]]] = {}
        for name, point in self.reference.points.items():  # in order
            if name in self.tallies["layers"]:
                layer = self._layer(name, point, gates)
                result.layers.append(layer)
                blocks.setdefault(layer.block, []).append((name, layer))
        for block, rows in blocks.items():
            alone, so_far = (self.tallies[feed][rows[-1][0]].sqnr_db for feed in ("blocks", "nothing"))
            result.blocks.append(Block(block, alone, so_far, len(rows), sum(layer.bad for _, layer in rows)))
        return result

    def _layer(self, name: str, point: Point, gates: Gates) -> Layer:
        tally, half = self.tallies["layers"][name], self.half.get(name, _Tally(False))
        if not math.isfinite(half.noise):  # fp16 does not hold the value: nothing is allowed for that
            half = _Tally(False)
        step = point.scale or (tally.high - tally.low) / 255 or 1.0
        steps, rms_steps, half_steps = tally.largest / step, tally.rms / step, half.largest / step
        stored, _ = self.values.grids.get(name, (None, 0))
        if point.scale is None or stored is None:
            floor = gates.floor(self.path.name)
            fine = tally.sqnr_db >= (min(floor, half.sqnr_db - HALF_MARGIN) if half.noise else floor)
        else:
            same_scale = abs(stored / point.scale - 1) <= SCALE_TOLERANCE
            most, most_rms = MOST_STEPS + half_steps, math.hypot(MOST_RMS_STEPS, half.rms / step)
            fine = steps <= most and rms_steps <= most_rms and same_scale
        sqnr = tally.sqnr_db
        return Layer(point.block, point.layer, point.op, sqnr, steps, rms_steps, half_steps, point.scale, stored, not fine)
