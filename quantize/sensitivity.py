"""Which layers int8 hurts most, and the cheapest set of them to keep in float so that top-1 keeps its distance from fp32.

All of it is judged on training pictures that neither calibrate nor train. The sensitivity of a block or layer is measured with it
alone in int8 and all else in float: the other way round, two bad layers would hide each other. SQNR of the logits ranks, because
top-1 on a few hundred pictures moves in steps; top-1 accepts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.models.deployed import Deployed, logits
from lavit_edge.models.paths import block_of
from lavit_edge.quantize.cost import Cost
from lavit_edge.quantize.evaluate import Metrics, better, measure
from lavit_edge.quantize.scheme import check_tensors, quantizable, quantizable_additions, quantized_model, replace

Paths = frozenset[str]
Track = Callable[[Collection[str], str], Iterable[str]]  # items and a title -> the items, with a progress bar


class LimitMissed(Exception):
    """No set of float layers that leaves a block in int8 meets the limit, or what came of the one that did does not."""


@dataclass(frozen=True)
class Sensitivity:
    """Path of a block or layer -> figures of the model with that alone in int8, in the order of the model.

    Attributes:
        blocks: all of them.
        layers: those of the blocks in which the search looked for layers to keep in float.
    """

    blocks: dict[str, Metrics]
    layers: dict[str, Metrics]


def hold_out(train: PictureFolder, calibration: PictureFolder, count: int) -> tuple[PictureFolder, PictureFolder]:
    """Two folders out of ``train``: ``count`` pictures to judge on, evenly over the classes, without those that calibrate; and
    the pictures that are left to train on. Raises :class:`UserError` when calibration has taken them all."""
    judging = _without(train, calibration.paths).spread(count)
    if not judging.paths:
        raise UserError("calibration takes every training picture and leaves none to judge --max-drop on; add pictures")
    return judging, _without(train, judging.paths)


def _without(folder: PictureFolder, paths: Collection) -> PictureFolder:
    out, taken = copy.copy(folder), set(paths)
    kept = [(path, target) for path, target in zip(folder.paths, folder.targets, strict=True) if path not in taken]
    out.paths, out.targets = [path for path, _ in kept], [target for _, target in kept]
    return out


class Judge:
    """Measures a fake-quantised model with any of its layers and additions in float, on pictures that are decoded once.

    Args:
        deployed: the fp32 model; left as it is.
        pictures: ``(B, 3, size, size)`` and classes of each batch.
        max_drop: points of top-1 that may be lost.
        min_sqnr: least SQNR of the logits in dB, None for any.
    """

    def __init__(
        self,
        deployed: Deployed,
        pictures: list[tuple[Tensor, list[int]]],
        max_drop: float,
        min_sqnr: float | None = None,
        device: str = "cpu",
    ) -> None:
        self.deployed, self.pictures, self.device = deployed, pictures, device
        self.reference, self.targets = logits(copy.deepcopy(deployed), pictures, device)
        self.fp32 = measure(self.reference, self.targets)
        self.min_sqnr = min_sqnr
        self.allowed = math.floor(max_drop / 100 * len(self.targets) + 1e-9)  # whole pictures

    def use(self, form: dict[str, Tensor], float_layers: Collection[str]) -> None:
        """From now on measures this int8 form."""
        check_tensors(self.deployed.model, form, float_layers, "the model just quantised")
        self.model = copy.deepcopy(self.deployed).cpu()
        fp32 = copy.deepcopy(self.model.model)
        self.in_float = {**quantizable(fp32, float_layers), **quantizable_additions(fp32, float_layers)}
        self.model.model = quantized_model(self.model.model, form, float_layers, "fake")
        self.in_int8 = {path: self.model.model.get_submodule(path) for path in self.in_float}
        self.known: dict[Paths, Metrics] = {}

    def __call__(self, kept: Collection[str] = ()) -> Metrics:
        """The figures with the layers ``kept`` in float as well."""
        if (key := frozenset(kept)) not in self.known:
            for path in self.in_int8:
                replace(self.model.model, path, (self.in_float if path in key else self.in_int8)[path])
            self.known[key] = measure(logits(self.model, self.pictures, self.device)[0], self.targets, self.reference)
        return self.known[key]

    def lost(self, metrics: Metrics) -> int:
        """Pictures that fp32 has right and these have not, less those the other way round."""
        return round((self.fp32.top1 - metrics.top1) * len(self.targets))

    def accepts(self, metrics: Metrics) -> bool:
        enough = self.min_sqnr is None or (metrics.sqnr_db is not None and metrics.sqnr_db >= self.min_sqnr)
        return enough and self.lost(metrics) <= self.allowed

    def prefers(self, one: Metrics, other: Metrics, imitate: bool = True) -> bool:
        """Whether ``one`` is to be kept rather than ``other``: what is within the limit, and of two that are, the better.

        :func:`better` alone takes four pictures for nothing, which may be more than the limit has left.

        Args:
            imitate: both imitate fp32, and none has learned from labels.
        """
        if self.accepts(one) != self.accepts(other):
            return self.accepts(one)
        return better(one, other, len(self.targets), self.fp32.top1 if imitate else 1.0)

    def check(self, metrics: Metrics, what: str) -> None:
        """The limit, asked of what is to be saved. Raises :class:`LimitMissed`."""
        if not self.accepts(metrics):
            found = f"{self.lost(metrics)} of {len(self.targets)} training pictures, {self.allowed} allowed"
            noise = "" if self.min_sqnr is None else f", and has {metrics.sqnr_db or 0:.1f} dB of {self.min_sqnr:g}"
            raise LimitMissed(f"--max-drop cannot be met: {what} loses {found}{noise}; nothing is saved")


def noise(metrics: Metrics) -> float:
    """Power of the logits' noise over that of the signal; of separate layers it adds up, roughly."""
    assert metrics.sqnr_db is not None
    return 10 ** (-metrics.sqnr_db / 10)


def search(judge: Judge, cost: Cost, track: Track) -> tuple[Paths, Sensitivity]:
    """The layers to keep in float, none when the limit is met without, and the sensitivities behind the choice.

    1. Blocks become float, the noisiest first, until the limit is met: these are opened.
    2. In them, layers or whole sub-blocks become float, those first that remove the most noise for their :class:`Cost`.
    3. Each that turns out not to be needed goes back to int8, the least noisy first.

    Raises:
        LimitMissed: even with all blocks but one in float.
    """
    layers = list(judge.in_int8)
    members: dict[str, list[str]] = {}
    for path in layers:
        members.setdefault(block_of(path), []).append(path)

    def alone(paths: Collection[str]) -> Metrics:
        return judge(set(layers) - set(paths))

    blocks = {block: alone(members[block]) for block in track(members, "blocks alone in int8")}
    if judge.accepts(judge()):
        return frozenset(), Sensitivity(blocks, {})

    opened: list[str] = []
    *noisier, quietest = sorted(members, key=lambda block: -noise(blocks[block]))
    for block in track(noisier, "noisiest blocks in float"):
        opened += members[block]
        if judge.accepts(judge(opened)):
            break
    else:
        lost = f"{judge.lost(judge(opened))} of {len(judge.targets)} training pictures, {judge.allowed} allowed"
        raise LimitMissed(f"--max-drop cannot be met: with {quietest} alone in int8, top-1 loses {lost}; nothing is saved")

    opened = [path for path in layers if path in opened]
    figures = {path: alone([path]) for path in track(opened, "layers alone in int8")}
    kept: Paths = frozenset()
    groups = dict.fromkeys(frozenset(p for p in opened if f"{p}.".startswith(f"{module}.")) for module in _modules(opened))
    while not judge.accepts(judge(kept)):
        gains = {
            group: sum(noise(figures[path]) for path in group - kept) / (cost(kept | group) - cost(kept))
            for group in groups
            if group - kept
        }
        kept |= max(gains.items(), key=lambda item: item[1])[0]
    for path in track(sorted(kept, key=lambda path: noise(figures[path])), "back to int8 where it can be"):
        fewer = kept - {path}
        if cost(fewer) < cost(kept) and judge.accepts(judge(fewer)):
            kept = fewer
    return kept, Sensitivity(blocks, figures)


def _modules(layers: Iterable[str]) -> Iterator[str]:
    """The layers themselves, and the modules that hold them, up to the block."""
    for path in layers:
        names = path.removeprefix(block_of(path)).split(".")
        yield from (block_of(path) + ".".join(names[:count]) for count in range(1, len(names) + 1))
