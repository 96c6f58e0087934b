"""``python -m lavit_edge.verify``: the agreement matrix of a bundle on labelled pictures.

Exit codes: 0 all gates passed; 1 a gate failed; 2 a mistake that one line on stderr explains; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lavit_edge.cli import Parser, add_gates, gates_from, run_command


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
    p.add_argument("--strict", action="store_true", help="refuse a picture that cannot be decoded instead of skipping it")
    add_gates(p)
    p.add_argument("--json", action="store_true", help="print the result as JSON on stdout, progress on stderr")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    gates = gates_from(args)
    from rich.console import Console

    from lavit_edge.parity.bundle import checkpoint_of, forms, free_pictures, labelled_pictures, measure, open_bundle
    from lavit_edge.parity.compare import FLOAT, PROGRAM
    from lavit_edge.parity.render import page, print_parity
    from lavit_edge.selftest import print_selftest, selftest
    from lavit_edge.signing import signature_mismatch

    console = Console(stderr=args.json)
    if args.signature and (mismatch := signature_mismatch(args.bundle, args.signature)):
        print(f"signature: {mismatch}", file=sys.stderr)
        return 1
    bundle = open_bundle(args.bundle)
    tested = {path.name: selftest(path) for path in bundle.runnable}
    for outcome in tested.values():
        if not outcome.passed:
            print_selftest(outcome, console)
    checkpoint = checkpoint_of(bundle, args.checkpoint)
    contract = checkpoint.contract
    folder = labelled_pictures(args.data, contract, args.pictures) if args.data else free_pictures(contract)
    parity = measure(
        forms(checkpoint, bundle.runnable, bundle.precision),
        folder,
        contract,
        labelled=args.data is not None,
        reference=PROGRAM if bundle.precision == "int8" else FLOAT,
        gates=gates,
        strict=args.strict,
        console=console,
    )
    title = f"{args.data.name}/val" if args.data else "free pictures"
    print_parity(title, parity, console)
    if args.page:
        args.page.write_text(
            page(f"{checkpoint.path.resolve().name}, {bundle.precision}: agreement", {title: parity}), encoding="utf-8"
        )
    passed = not parity.failures and all(outcome.passed for outcome in tested.values())
    if args.json:
        selftests = {name: outcome.passed for name, outcome in tested.items()}
        print(json.dumps({"gates": vars(gates), "passed": passed, "selftest": selftests, **parity.to_dict()}, indent=1))
    return 0 if passed else 1


if __name__ == "__main__":
    run_command(main)
