"""``python -m lavit_edge.verify``: the agreement matrix of a bundle on labelled pictures, or where its artifacts part.

Exit codes: 0 all gates passed; 1 a gate or a layer failed; 2 a mistake that one line on stderr explains; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lavit_edge.cli import Parser, add_trust, run_command
from lavit_edge.errors import UserError
from lavit_edge.parity.agreement import Gates
from lavit_edge.parity.options import add_gates, gates_from


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.verify", description="Compare every form of a bundle's model on real, labelled pictures.")
    p.add_argument("bundle", type=Path, help="folder that python -m lavit_edge.export wrote")
    p.add_argument(
        "--data", type=Path, help="folder with val/<class>/; without it the free pictures serve, which have no labels here"
    )
    p.add_argument("--pictures", type=int, default=500, help="how many pictures, evenly over the classes")
    p.add_argument("--checkpoint", type=Path, help="where the bundle's checkpoint is, if it has moved")
    p.add_argument("--page", type=Path, help="also write the matrix as an HTML page")
    p.add_argument(
        "--signature", type=Path, metavar="KEY", help="first check the bundle's signature with this EC public key (PEM)"
    )
    p.add_argument(
        "--locate",
        type=int,
        nargs="?",
        const=4,
        metavar="N",
        help="instead of the matrix, compare all layers inside the artifacts on N pictures (4) and name the first that differs",
    )
    p.add_argument("--strict", action="store_true", help="refuse a picture that cannot be decoded instead of skipping it")
    add_trust(p)
    add_gates(p)
    p.add_argument("--json", action="store_true", help="print the result as JSON on stdout, progress on stderr")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    gates = gates_from(args)
    if args.signature:
        from lavit_edge.artifact.signing import signature_mismatch

        if mismatch := signature_mismatch(args.bundle, args.signature):
            print(f"signature: {mismatch}", file=sys.stderr)
            return 1
    if args.locate is not None:
        return run_locate(args, gates)
    from rich.console import Console

    from lavit_edge.artifact.bundle import open_bundle
    from lavit_edge.data.folder import free_pictures, labelled_pictures
    from lavit_edge.parity.check import Pictures, check
    from lavit_edge.parity.forms import checkpoint_of
    from lavit_edge.parity.render import page

    console = Console(stderr=args.json)
    bundle = open_bundle(args.bundle)
    checkpoint = checkpoint_of(bundle, args.checkpoint, args.trust_builder)
    contract = checkpoint.contract
    folder = labelled_pictures(args.data, contract, args.pictures) if args.data else free_pictures(contract)
    title = f"{args.data.name}/val" if args.data else "free pictures"
    sets = {title: Pictures(folder, args.data is not None)}
    checked = check(bundle, checkpoint, sets, gates, strict=args.strict, console=console)
    if args.page:
        heading = f"{checkpoint.path.resolve().name}, {bundle.precision}: agreement"
        args.page.write_text(page(heading, checked.sets, checked.wrong_layers), encoding="utf-8")
    if args.json:
        print(json.dumps({"gates": vars(gates), **checked.sets[title].to_dict(), **checked.to_dict()}, indent=1))
    return 0 if checked.passed else 1


def run_locate(args: argparse.Namespace, gates: Gates) -> int:
    """``--locate``."""
    if args.locate < 1 or args.page:
        raise UserError("--locate makes no --page; leave one out" if args.page else "--locate takes at least 1 picture")
    from itertools import islice

    from rich.console import Console

    from lavit_edge.artifact.bundle import open_bundle
    from lavit_edge.data.folder import free_pictures, labelled_pictures
    from lavit_edge.parity.check import NAMES, PROGRAMS
    from lavit_edge.parity.forms import checkpoint_of
    from lavit_edge.parity.locate import locate
    from lavit_edge.parity.locate_render import print_located, sentence

    console = Console(stderr=args.json)
    bundle = open_bundle(args.bundle)
    checkpoint = checkpoint_of(bundle, args.checkpoint, args.trust_builder)
    contract = checkpoint.contract
    folder = labelled_pictures(args.data, contract, args.locate) if args.data else free_pictures(contract)
    pictures = (picture for picture, _ in islice(folder.inputs(contract, args.strict), args.locate))
    reference = NAMES[bundle.precision]
    with console.status("building the program"):
        program = PROGRAMS[bundle.precision](checkpoint)
    results = locate(program, bundle.runnable, pictures, gates, console)
    print_located(results, reference, console)
    passed = not any(result.first for result in results)
    if args.json:
        artifacts = [{**result.to_dict(), "sentence": sentence(result, reference)} for result in results]
        print(json.dumps({"reference": reference, "passed": passed, "artifacts": artifacts}, indent=1))
    return 0 if passed else 1


if __name__ == "__main__":
    run_command(main)
