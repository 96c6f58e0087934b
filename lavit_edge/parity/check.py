"""All that a bundle's artifacts must pass: each tests itself, its layers are compared with the program's, and all forms of the
model with each other. ``export`` asks it of its own work, ``verify`` of anybody's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lavit_edge.artifact.bundle import Bundle
from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import read_entries
from lavit_edge.checkpoint import Checkpoint
from lavit_edge.data.folder import PictureFolder, free_pictures
from lavit_edge.parity.agreement import FLOAT, PROGRAM, Gates, Parity
from lavit_edge.parity.forms import forms, measure, one_thread
from lavit_edge.parity.locate import Located, locate
from lavit_edge.parity.locate_render import print_located, sentence
from lavit_edge.parity.render import print_parity
from lavit_edge.quantize import float_program, int8_program
from lavit_edge.selftest import print_selftest, selftest

if TYPE_CHECKING:
    from torch.export import ExportedProgram

PROGRAMS = {"int8": int8_program, "float": float_program}
NAMES = {"int8": PROGRAM, "float": "float program"}  # of the program, by precision
# A wrong layer is wrong on nearly any picture; a channel may be dead on one. With two, every weight zeroed, negated or rotated in
# tests/parity/test_locate_layers.py is named.
LAYER_PICTURES = 2


@dataclass(frozen=True)
class Pictures:
    """Pictures to compare all forms on, and whether their labels are the model's."""

    folder: PictureFolder
    labelled: bool


@dataclass(frozen=True)
class Checked:
    """
    Attributes:
        checkpoint: its name.
        selftest: whether it passed, by artifact.
        layers: of each artifact.
        sets: the agreement on each set of pictures.
        gates: what was wanted.
        source: the checkpoint itself.
    """

    checkpoint: str
    precision: str
    selftest: dict[str, bool]
    layers: list[Located]
    sets: dict[str, Parity]
    gates: Gates
    source: Checkpoint

    @property
    def wrong_layers(self) -> list[str]:
        """A sentence for each artifact that parts from the program, naming runtime and layer."""
        return [sentence(located, NAMES[self.precision]) for located in self.layers if located.first]

    @property
    def passed(self) -> bool:
        agree = not any(parity.failures for parity in self.sets.values())
        return all(self.selftest.values()) and not self.wrong_layers and agree

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the sets."""
        layers = {"compared": {located.artifact: len(located.layers) for located in self.layers}, "wrong": self.wrong_layers}
        return {"passed": self.passed, "selftest": self.selftest, "layers": layers}


def _carries_other(path: Path, bundle: Bundle, checkpoint: Checkpoint) -> str | None:
    """What an artifact, or the manifest, says of its contract and origin that the checkpoint does not."""
    payload, manifest = read_payload(read_entries(path)), bundle.manifest
    if payload.contract != checkpoint.contract:
        return "its contract is not the checkpoint's"
    if payload.provenance.get("checkpoint", {}).get("sha256") != checkpoint.config["sha256"]:
        return "it says that it was made from another checkpoint"
    if (manifest.get("contract"), manifest.get("contract_sha256")) != (checkpoint.contract.to_dict(), checkpoint.contract.sha256):
        return "the manifest's contract is not the checkpoint's"
    return None


@one_thread()
def check(
    bundle: Bundle,
    checkpoint: Checkpoint,
    sets: dict[str, Pictures],
    gates: Gates,
    *,
    strict: bool,
    console: Console,
    program: ExportedProgram | None = None,
) -> Checked:
    """Checks all that can run on this host, and prints what it finds.

    Args:
        checkpoint: that the bundle was exported from.
        sets: by title.
        strict: refuse a picture that cannot be decoded.
        program: the reference, which no exporter has had in hand; None: made from the checkpoint.

    Raises:
        UserError: an artifact cannot run, or it was not made from this program.
    """
    tested = {}
    for path in bundle.runnable:
        outcome = selftest(path)
        tested[path.name] = outcome.passed
        if not outcome.passed:
            print_selftest(outcome, partial(console.print, highlight=False, soft_wrap=True))
        elif differs := _carries_other(path, bundle, checkpoint):
            tested[path.name] = False
            console.print(f"{path.name}: {differs}", style="red", markup=False)
    if program is None:
        with console.status("building the program"):
            program = PROGRAMS[bundle.precision](checkpoint)
    contract, int8 = checkpoint.contract, bundle.precision == "int8"
    pictures = (picture for picture, _ in islice(free_pictures(contract).inputs(contract), LAYER_PICTURES))
    layers = locate(program, bundle.runnable, pictures, gates, console)
    print_located([located for located in layers if located.first], NAMES[bundle.precision], console)
    runs = forms(checkpoint, bundle.runnable, program if int8 else None)
    reference = PROGRAM if int8 else FLOAT
    results = {}
    for title, each in sets.items():
        results[title] = measure(
            runs,
            each.folder,
            contract,
            labelled=each.labelled,
            reference=reference,
            gates=gates,
            strict=strict,
            console=console,
        )
        print_parity(title, results[title], console)
    return Checked(checkpoint.path.resolve().name, bundle.precision, tested, layers, results, gates, checkpoint)
