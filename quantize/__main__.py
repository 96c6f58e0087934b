"""``python -m lavit_edge.quantize``: measured ranges, quantisation-aware training, and a checkpoint that carries its int8 form.

Exit codes: 0 saved; 1 --max-drop cannot be met; 2 a mistake that one line on stderr explains; 130 interrupted. Nothing is written
but for 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lavit_edge.cli import Parser, add_options, config_from, new_console, run_command
from lavit_edge.quantize.config import QuantizeConfig


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.quantize", description="Turn a checkpoint into an int8 checkpoint.")
    p.add_argument("--checkpoint", required=True, metavar="DIR", help="fp32 checkpoint folder, or the name of a bundled one")
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with train/<class>/ and val/<class>/")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the int8 checkpoint")
    add_options(p, QuantizeConfig)
    p.add_argument("--json", action="store_true", help="print the result as JSON; progress goes to standard error anyhow")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    config = config_from(QuantizeConfig, args)
    from lavit_edge.quantize.render import show  # here, so that --help and a mistake are answered without torch
    from lavit_edge.quantize.run import quantize
    from lavit_edge.quantize.sensitivity import LimitMissed

    try:
        quantized = quantize(args.checkpoint, args.data, args.out, config, console=new_console(stderr=True))
    except LimitMissed as verdict:
        print(verdict, file=sys.stderr)
        return 1
    result = {"out": str(args.out), **quantized.config["quantization"]}
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    run_command(main)
