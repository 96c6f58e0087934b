"""Makes the payload of an artifact: golden pictures, what the program answers to them, and how far a sound artifact may be off.

Int8 codes that fall on a tie are rounded apart by other runtimes, and what follows differs as much as int8 differs from fp32,
however small the cause (of the bundled model's logits 0.06 in the root mean square, for relative changes of 2^-18 as for 2^-11 of
every value). Photographs always meet such ties. A picture of one colour has few distinct values and often meets none, and then
every runtime gives the program's own codes. So there are two tests: each picture has a tolerance, from what rounding otherwise
moves; and some of the quiet pictures must be answered just as the program does, which the least fault in a layer prevents.

fp16 rounds codes apart on every picture, so there the second test falls away; pictures made for a layer take its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.export import ExportedProgram

import lavit_edge
from lavit_edge.artifact.payload import Golden, Payload, sample_of
from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import open_picture, to_input
from lavit_edge.data.folder import free_pictures
from lavit_edge.export.adversarial import make_input, steepest, uncropped
from lavit_edge.export.replay import Replay, Values
from lavit_edge.metrics import centred, logit_step
from lavit_edge.parity.forms import one_thread
from lavit_edge.selftest import GREY_LEVELS

PICTURES = Path(lavit_edge.__file__).parent / "golden"
# Least tolerance of a picture in steps, by the precision that a runtime computes its float values in
TOLERANCE = {"float32": 0.1, "float16": 1.0}
ROUNDING = {"float32": 2.0**-18, "float16": 2.0**-11}  # relative, of every float value: some 30 times fp32's own; fp16's own
DRAWS, HEADROOM = 2, 3.0  # a tolerance is that many times the largest of so many differences
# Of the flat colours that are tried those are taken that other roundings move least. Of 64 colours ONNX Runtime gave 48 %
# the same answer as the program of the bundled model, ExecuTorch 83 %; of photographs 0 and 60 %.
COLOURS, QUIET, CLOSE = 32, 16, 2
LEAST_QUIET = 8  # colours that no last bit moves; with fewer a sound runtime might meet ties on all, and none must be close
LAST_BITS = (2.0**-23, 2.0**-22)  # relative, the same for all of a value, as where a product of scales is rounded otherwise
# While fewer faults than WANTED are seen in fp16, at most MADE pictures are made for layers (0.1 MB of 160 x 160 pixels). Their
# tolerance is at least MEDIANS times the median of MADE_DRAWS differences and LARGEST times the largest. The bundled model's: a
# median of 7 and 10 steps, the largest of 14 and 17; of 280 others none was above 0.66 of what is allowed.
WANTED, MADE, MADE_DRAWS, MEDIANS, LARGEST = 0.9, 2, 32, 3.0, 1.5
MOST_LAYERS = 60  # that faults are planted in
PATTERN = 32  # longer side of a pattern in pixels
FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "zeroed": torch.zeros_like,
    "negated": torch.neg,
    "rotated": lambda weight: torch.roll(weight, 1, 0),  # its output channels
}


@dataclass(frozen=True)
class Power:
    """Which planted faults the self-test sees.

    Attributes:
        planted: each of :data:`FAULTS` in each of the layers that were chosen.
        blind: those that pass, ``<layer> <fault>``.
    """

    planted: int
    layers: int
    blind: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        seen = self.planted - len(self.blind)
        return {"layers": self.layers, "planted": self.planted, "seen": seen, "blind": list(self.blind)}


@dataclass(frozen=True)
class Chosen:
    """What :func:`choose` found, by ``float32`` or ``float16``: what a runtime computes its float values in."""

    contract: InputContract
    golden: dict[str, tuple[Golden, ...]]
    step: float
    close: dict[str, int]
    power: dict[str, Power]

    def payload(self, kind: str, provenance: dict[str, Any], tolerance: float | None = None) -> Payload:
        """The payload of an artifact.

        Args:
            tolerance: of every picture in place of its own, in steps.
        """
        golden = self.golden[kind]
        if tolerance is not None:
            golden = tuple(replace(each, tolerance=tolerance) for each in golden)
        return Payload(self.contract, provenance, golden, self.step, TOLERANCE["float32"], self.close[kind])


def make_payload(program: ExportedProgram, contract: InputContract, provenance: dict[str, Any], tolerance: float) -> Payload:
    """A payload of the four photographs alone, each with the same tolerance in steps: nothing is planted or measured."""
    with one_thread():  # sums in another order change last bits: the same export must give the same bytes
        replay = Replay(program)
        golden = [_golden(replay, name, image, contract)[0] for name, image in photographs()]
    step = logit_step(np.stack([each.logits for each in golden]))
    return Payload(contract, provenance, tuple(replace(each, tolerance=tolerance) for each in golden), step)


def choose(program: ExportedProgram, contract: InputContract, kinds: Collection[str]) -> Chosen:
    """Golden pictures on which damage shows, and what of it they show.

    The photographs are always among them. To an int8 program come the quietest flat colours, and any pattern that shows a
    planted fault that those before it do not. In fp16 flat colours that show nothing of their own are left
    out, and where it hides too many faults, pictures made for layers come in.

    Args:
        program: float32 ``(1, 3, size, size)`` RGB in 0..255 -> logits ``(1, classes)``.
        kinds: of ``float32`` and ``float16``, those that the artifacts' runtimes compute in.
    """
    with one_thread():
        return _Choice(program, contract, kinds).choose()


class _Choice:
    def __init__(self, program: ExportedProgram, contract: InputContract, kinds: Collection[str]) -> None:
        self.replay, self.contract, self.kinds = Replay(program), contract, sorted(kinds)
        self.random, self.pool = torch.Generator().manual_seed(0), torch.empty(0)
        layers = list(self.replay.weights)
        self.layers = [layers[i] for i in np.linspace(0, len(layers) - 1, min(MOST_LAYERS, len(layers))).round().astype(int)]
        # of each fault, the largest difference of a logit by number of a picture; none where all artifacts would fail already
        self.off: dict[tuple[str, str], dict[int, float]] = {(path, fault): {} for path in self.layers for fault in FAULTS}
        self.golden: list[Golden] = []
        self.noise: dict[str, list[float]] = {kind: [] for kind in self.kinds}

    def choose(self) -> Chosen:
        photos = list(photographs())
        self.step = logit_step(np.stack([_golden(self.replay, name, image, self.contract)[0].logits for name, image in photos]))
        colours, still = self._quiet() if self.replay.quantized else ([], 0)
        for name, image in [*photos, *colours]:
            self._add(name, image, always=True)
        for name, image in patterns(self.contract):
            if all(self._shown(fault) for fault in self.off):
                break
            self._add(name, image, always=False)
        self._look_again()
        # fp16 rounds a code apart in every layer, on whatever picture
        close = {kind: CLOSE if kind == "float32" and still >= LEAST_QUIET else 0 for kind in self.kinds}
        power = {kind: self._power(kind, close[kind]) for kind in self.kinds}
        golden = {
            kind: [
                replace(each, tolerance=self._tolerance(kind, noise))
                for each, noise in zip(self.golden, self.noise[kind], strict=True)
            ]
            for kind in self.kinds
        }
        if self.replay.quantized and "float16" in self.kinds:
            needed = self._needed("float16", range(len(photos), len(photos) + len(colours)))
            made, power["float16"] = self._make("float16", power["float16"])
            golden["float16"] = [golden["float16"][number] for number in needed] + made
        return Chosen(self.contract, {kind: tuple(each) for kind, each in golden.items()}, self.step, close, power)

    def _quiet(self) -> tuple[list[tuple[str, Image.Image]], int]:
        """The flat colours that last bits move least, the quietest first, and how many of them none moved."""
        colours = np.random.default_rng(0).integers(0, 256, (COLOURS, 3), dtype=np.uint8)
        moved = []
        for colour in colours:
            image = Image.fromarray(np.tile(colour, (4, 3, 1)))
            golden, _ = _golden(self.replay, "#" + bytes(colour).hex(), image, self.contract)
            picture, noise = to_input(image, self.contract), []
            for size in LAST_BITS:
                for sign in (1, -1):
                    other = self.replay.run(picture, _Alternating(size * sign))
                    noise.append(_difference(self.replay.logits(other), golden.logits))
            far = sum(each > TOLERANCE["float32"] * self.step for each in noise)
            moved.append((far, sum(noise), golden.name, image))
        chosen = sorted(moved, key=lambda each: each[:3])[:QUIET]
        return [(name, image) for _, _, name, image in chosen], sum(far == 0 for far, *_ in chosen)

    def _add(self, name: str, image: Image.Image, always: bool) -> None:
        """Takes a picture, if it shows a fault that those before it do not, or ``always``."""
        golden, values = _golden(self.replay, name, image, self.contract)
        picture = to_input(image, self.contract)
        noise = {kind: self._noise(picture, golden.logits, ROUNDING[kind]) for kind in self.kinds}
        off = {planted: self._moves(values, planted, golden) for planted in self.off if not self._shown(planted)}
        allowed = max(self.step * self._tolerance(kind, noise[kind]) for kind in self.kinds)
        if always or any(each > allowed for each in off.values()):
            for planted, each in off.items():
                self.off[planted][len(self.golden)] = each
            self.golden.append(golden)
            for kind in self.kinds:
                self.noise[kind].append(noise[kind])

    def _look_again(self) -> None:
        """At faults on pictures that passed them over, and that no picture shows any more since tolerances have grown."""
        for number, golden in enumerate(self.golden):
            over = [planted for planted, off in self.off.items() if number not in off and not self._shown(planted)]
            if over:
                values = self.replay.run(to_input(golden.image(), self.contract))
                for planted in over:
                    self.off[planted][number] = self._moves(values, planted, golden)

    def _needed(self, kind: str, colours: Collection[int]) -> list[int]:
        """Numbers of the pictures, without those flat colours that show no fault but what others show: none need be close."""
        kept = list(range(len(self.golden)))
        shown = [planted for planted in self.off if self._exceeds(kind, planted)]
        for colour in colours:
            others = [number for number in kept if number != colour]
            if all(self._exceeds(kind, planted, others) for planted in shown):
                kept = others
        return kept

    def _make(self, kind: str, power: Power) -> tuple[list[Golden], Power]:
        """Pictures made for layers while too little is seen, those that show a fault, and what is seen with them."""
        made, size = [], self.contract.size
        blind = [planted for planted in self.off if " ".join(planted) in power.blind]
        tried: set[str] = set()
        for number in range(MADE):
            candidates = [(path, FAULTS[fault]) for path, fault in blind if path not in tried]
            if not candidates or len(blind) <= (1 - WANTED) * power.planted:
                break
            chosen = steepest(self.replay, size, candidates)
            if chosen is None:
                break
            target = candidates[chosen]
            tried.add(target[0])
            image = Image.fromarray(uncropped(make_input(self.replay, size, target), self.contract))
            golden, values = _golden(self.replay, f"made {number}", image, self.contract)
            noise = self._draws(to_input(image, self.contract), golden.logits, ROUNDING[kind], MADE_DRAWS, GREY_LEVELS)
            allowed = max(MEDIANS * float(np.median(noise)), LARGEST * max(noise))
            tolerance = max(TOLERANCE[kind], math.ceil(10 * allowed / self.step) / 10)
            hidden = [planted for planted in blind if self._moves(values, planted, golden) <= self.step * tolerance]
            if len(hidden) < len(blind):
                made.append(replace(golden, tolerance=tolerance))
                blind = hidden
        return made, replace(power, blind=tuple(map(" ".join, blind)))

    def _moves(self, values: Values, planted: tuple[str, str], golden: Golden) -> float:
        """How far a fault moves a logit of a picture at most."""
        path, fault = planted
        return _difference(self.replay.changed(values, path, FAULTS[fault]), golden.logits)

    def _noise(self, picture: NDArray[np.uint8], logits: NDArray[np.float32], size: float) -> float:
        """How far logits move at most when every float value is rounded by so much, relatively."""
        return max(self._draws(picture, logits, size, DRAWS))

    def _draws(
        self, picture: NDArray[np.uint8], logits: NDArray[np.float32], size: float, draws: int, grey: int = 0
    ) -> list[float]:
        """How far logits move each time that every float value is rounded, and pixels are up to ``grey`` levels off."""

        def rounding(value: Tensor) -> Tensor:
            return torch.addcmul(value, value, self._between(value.shape), value=size)

        moved = []
        for _ in range(draws):
            other = picture
            if grey:
                off = torch.randint(-grey, grey + 1, picture.shape, generator=self.random).numpy()
                other = np.clip(picture + off, 0, 255).astype(np.uint8)
            moved.append(_difference(self.replay.logits(self.replay.run(other, rounding)), logits))
        return moved

    def _between(self, shape: torch.Size) -> Tensor:
        """Random numbers from -1 to 1, from anywhere in a pool of them: to draw each anew took a third of a run's time."""
        count = shape.numel()
        if len(self.pool) < 2 * count:
            self.pool = 2 * torch.rand(4 * count, generator=self.random) - 1
        start = int(torch.randint(len(self.pool) - count + 1, (), generator=self.random))
        return self.pool[start : start + count].view(shape)

    def _tolerance(self, kind: str, noise: float) -> float:
        """In steps, rounded up to tenths. Two draws may both be small by chance: noise counts as no less than most pictures'."""
        noise = max(noise, float(np.median([*self.noise[kind], noise])))
        return max(TOLERANCE[kind], math.ceil(10 * HEADROOM * noise / self.step) / 10)

    def _shown(self, planted: tuple[str, str]) -> bool:
        """Whether a fault exceeds the tolerance of a picture in every kind of artifact."""
        return all(self._exceeds(kind, planted) for kind in self.kinds)

    def _exceeds(self, kind: str, planted: tuple[str, str], pictures: Collection[int] | None = None) -> bool:
        """Whether a fault exceeds the tolerance of one of all pictures, or of those numbers.

        ``not <=``, since a broken layer may give values that are no numbers.
        """
        noise, off = self.noise[kind], self.off[planted]
        numbers = off if pictures is None else off.keys() & set(pictures)
        return any(not off[i] <= self.step * self._tolerance(kind, noise[i]) for i in numbers)

    def _power(self, kind: str, close: int) -> Power:
        blind = []
        for (path, fault), off in self.off.items():
            as_expected = sum(each <= TOLERANCE["float32"] * self.step for each in off.values())
            if not self._exceeds(kind, (path, fault)) and as_expected >= close:
                blind.append(f"{path} {fault}")
        return Power(len(self.off), len(self.layers), tuple(blind))


class _Alternating:
    """Moves every other value that it is given up, and the others down."""

    def __init__(self, size: float) -> None:
        self.size = size

    def __call__(self, value: Tensor) -> Tensor:
        self.size = -self.size
        return value * (1 + self.size)


def photographs() -> Iterator[tuple[str, Image.Image]]:
    """The pictures in every artifact, by name."""
    for file in sorted(PICTURES.glob("*.png")):
        yield file.stem, open_picture(file)


def patterns(contract: InputContract) -> Iterator[tuple[str, Image.Image]]:
    """Small pictures to choose from: one of each class of the free ones, and mosaics of black, white and full colours."""
    folder = free_pictures(contract)
    for number in range(2):
        colours = np.random.default_rng(number).choice(np.array([0, 255], np.uint8), (4, 3, 3))
        yield f"mosaic {number}", Image.fromarray(colours)
    firsts = dict(zip(reversed(folder.targets), reversed(folder.paths), strict=True))
    for target in sorted(firsts):
        image = open_picture(firsts[target])
        image.thumbnail((PATTERN, PATTERN))
        yield folder.labels[target], image


def _golden(replay: Replay, name: str, image: Image.Image, contract: InputContract) -> tuple[Golden, Values]:
    """A golden picture without a tolerance, and all values of the program for it."""
    picture = to_input(image, contract)
    values = replay.run(picture)
    return Golden(name, np.array(image), sample_of(picture), replay.logits(values), math.inf), values


def _difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The largest of a logit, less their mean."""
    return float(np.abs(centred(one) - centred(other)).max())
