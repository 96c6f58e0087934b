"""``python -m lavit_edge.verify``: the agreement matrix of a bundle on labelled pictures, or where its artifacts part.

Exit codes: 0 all gates passed; 1 a gate or a layer failed; 2 a mistake that one line on stderr explains; 130 interrupted.

The module can be called: it is :func:`verify`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavit_edge.cli import Parser, add_options, config_from, new_console, option, run_command, trust_option
from lavit_edge.errors import UserError
from lavit_edge.parity.agreement import Gates
from lavit_edge.verbs import silent, verb

if TYPE_CHECKING:
    from rich.console import Console

    from lavit_edge.parity.check import Checked
    from lavit_edge.parity.locate import Located

verb(__name__)

LOCATE_PICTURES = 4


@dataclass(frozen=True)
class VerifyConfig:
    """The options of ``python -m lavit_edge.verify``, whose ``--help`` says what each is, and

    Attributes:
        gates: what the artifacts must reach.

    Raises:
        UserError: a value is out of range.
    """

    data: Path | None = option(None, "folder with val/<class>/; without it the free pictures serve, which have no labels here")
    pictures: int = option(500, "how many pictures, evenly over the classes")
    checkpoint: Path | None = option(None, "where the bundle's checkpoint is, if it has moved")
    strict: bool = option(False, "refuse a picture that cannot be decoded instead of skipping it")
    trust_builder: bool = trust_option()
    gates: Gates = field(default_factory=Gates)

    def __post_init__(self) -> None:
        if self.pictures < 1:
            raise UserError(f"--pictures must be at least 1, not {self.pictures}")


@dataclass(frozen=True)
class Layers:
    """Each artifact's layers against those of the program ``reference``."""

    reference: str
    artifacts: list[Located]

    @property
    def passed(self) -> bool:
        """Whether none differs by more than its tolerance."""
        return not any(located.first for located in self.artifacts)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        from lavit_edge.parity.locate_render import sentence

        artifacts = [{**located.to_dict(), "sentence": sentence(located, self.reference)} for located in self.artifacts]
        return {"reference": self.reference, "passed": self.passed, "artifacts": artifacts}


def verify(bundle: Path | str, config: VerifyConfig | None = None, *, console: Console | None = None) -> Checked:
    """Compares every form of a bundle's model on pictures: the command ``python -m lavit_edge.verify``.

    Args:
        bundle: the folder that :func:`lavit_edge.export.bundle.export` wrote.
        console: shows what is going on and what was found; None: nothing is shown.

    Raises:
        UserError: no bundle, not its checkpoint, or pictures that cannot be read.
    """
    from lavit_edge.artifact.bundle import open_bundle
    from lavit_edge.data.folder import free_pictures, labelled_pictures
    from lavit_edge.parity.check import Pictures, check
    from lavit_edge.parity.forms import checkpoint_of
    from lavit_edge.parity.summary import print_summary, summary

    config = config or VerifyConfig()
    opened = open_bundle(Path(bundle))
    checkpoint = checkpoint_of(opened, config.checkpoint, config.trust_builder)
    if config.data is None:
        sets = {"free pictures": Pictures(free_pictures(checkpoint.contract), False)}
    else:
        data = Path(config.data)
        sets = {f"{data.name}/val": Pictures(labelled_pictures(data, checkpoint.contract, config.pictures), True)}
    console = console or silent()
    checked = check(opened, checkpoint, sets, config.gates, strict=config.strict, console=console)
    print_summary(summary(checked, opened.path, config.data, config.checkpoint), console)
    return checked


def locate(bundle: Path | str, config: VerifyConfig | None = None, *, console: Console | None = None) -> Layers:
    """Compares all layers inside a bundle's artifacts with those of their program: ``verify --locate``.

    Args and errors are those of :func:`verify`. A few pictures do: ``VerifyConfig(pictures=4)``.
    """
    from lavit_edge.artifact.bundle import open_bundle
    from lavit_edge.data.folder import free_pictures, labelled_pictures
    from lavit_edge.parity import locate as layers
    from lavit_edge.parity.check import NAMES, PROGRAMS
    from lavit_edge.parity.forms import checkpoint_of
    from lavit_edge.parity.locate_render import print_located

    config, console = config or VerifyConfig(pictures=LOCATE_PICTURES), console or silent()
    opened = open_bundle(Path(bundle))
    checkpoint = checkpoint_of(opened, config.checkpoint, config.trust_builder)
    contract, count = checkpoint.contract, config.pictures
    folder = free_pictures(contract) if config.data is None else labelled_pictures(Path(config.data), contract, count)
    pictures = (picture for picture, _ in islice(folder.inputs(contract, config.strict), count))
    with console.status("building the program"):
        program = PROGRAMS[opened.precision](checkpoint)
    results = layers.locate(program, opened.runnable, pictures, config.gates, console)
    print_located(results, NAMES[opened.precision], console)
    return Layers(NAMES[opened.precision], results)


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.verify", description="Compare every form of a bundle's model on real, labelled pictures.")
    p.add_argument("bundle", type=Path, help="folder that python -m lavit_edge.export wrote")
    add_options(p, VerifyConfig)
    p.add_argument("--page", type=Path, help="also write the matrix as an HTML page")
    p.add_argument(
        "--signature", type=Path, metavar="KEY", help="first check the bundle's signature with this EC public key (PEM)"
    )
    p.add_argument(
        "--locate",
        type=int,
        nargs="?",
        const=LOCATE_PICTURES,
        metavar="N",
        help="instead of the matrix, compare all layers inside the artifacts on N pictures (4) and name the first that differs",
    )
    add_options(p, Gates, "gate, see docs/parity.md")
    p.add_argument("--json", action="store_true", help="print the result as JSON on stdout, progress on stderr")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    config = config_from(VerifyConfig, args, gates=config_from(Gates, args))
    if args.locate is not None and (args.locate < 1 or args.page):
        raise UserError("--locate makes no --page; leave one out" if args.page else "--locate takes at least 1 picture")
    if args.signature:
        from lavit_edge.artifact.signing import signature_mismatch

        if mismatch := signature_mismatch(args.bundle, args.signature):
            print(f"signature: {mismatch}", file=sys.stderr)
            return 1
    console = new_console(stderr=args.json)
    if args.locate is None:
        checked = verify(args.bundle, config, console=console)
        if args.page:
            from lavit_edge.parity.page import page
            from lavit_edge.parity.summary import summary

            heading = f"{checked.checkpoint}, {checked.precision}: agreement"
            found = summary(checked, args.bundle, config.data, config.checkpoint)
            args.page.write_text(page(heading, checked.sets, found), encoding="utf-8")
        (parity,) = checked.sets.values()
        result = {"gates": vars(config.gates), **parity.to_dict(), **checked.to_dict()}
    else:
        result = locate(args.bundle, replace(config, pictures=args.locate), console=console).to_dict()
    if args.json:
        print(json.dumps(result, indent=1))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    run_command(main)
