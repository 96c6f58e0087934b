"""``python -m lavit_edge.adapt``: a model of another package becomes a checkpoint.

Exit codes: 0 saved; 2 a mistake that one line on stderr explains; 130 interrupted. Nothing is written but for 0.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavit_edge.cli import Parser, new_console, run_command
from lavit_edge.errors import UserError
from lavit_edge.files import read_json


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.adapt", description="Turn a model of another package into a checkpoint.")
    p.add_argument("--builder", required=True, metavar="PACKAGE:FUNCTION", help="builds the model; importing it runs its code")
    p.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="options of the builder")
    p.add_argument("--weights", type=Path, metavar="FILE", help="safetensors, or their index; without: those the builder gives")
    p.add_argument("--contract", type=Path, metavar="FILE", help="JSON; what it lacks comes from the model's pretrained_cfg")
    p.add_argument("--labels", type=Path, metavar="FILE", help="a name per logit: a text with one a line, or a JSON list")
    p.add_argument("--float-layers", nargs="+", metavar="PATTERN", help="instead of the first embedding and the head")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the checkpoint")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    from lavit_edge.adapt.preprocessing import contract_of, read_labels
    from lavit_edge.adapt.run import adapt
    from lavit_edge.adapt.weights import load_weights
    from lavit_edge.traced.builder import build

    fields = read_json(arguments.contract) if arguments.contract else {}
    if not isinstance(fields, dict):
        raise UserError(f"{arguments.contract} must be an object with the fields of a contract")
    labels = read_labels(arguments.labels) if arguments.labels else None
    options = parse_options(arguments.set)
    module = build({"builder": arguments.builder, "options": options}, arguments.builder, trust=True)
    mended = load_weights(module, arguments.weights) if arguments.weights else []
    stored = {**options, "pretrained": False} if "pretrained" in options else options  # the checkpoint has the weights
    contract = contract_of(module, labels, fields)
    checkpoint = adapt(module, contract, arguments.float_layers, out=arguments.out, builder=arguments.builder, options=stored)
    console = new_console()
    for note in (*mended, *checkpoint.config["adapted"]["notes"]):
        console.print(note, soft_wrap=True, highlight=False)
    if not arguments.weights:
        console.print("no --weights: the checkpoint has those that the builder gave", soft_wrap=True)
    console.print(f"saved {arguments.out}", soft_wrap=True, highlight=False)
    return 0


def parse_options(items: Sequence[str]) -> dict[str, Any]:
    """``name=value`` each; a value is JSON where it is that, otherwise text."""
    options: dict[str, Any] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"--set {item}: options are name=value")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


if __name__ == "__main__":
    run_command(main)
