"""``python -m lavit_edge.export``: a checkpoint becomes a bundle of artifacts that are shown to agree.

Exit codes: 0 exported and all gates passed; 1 exported, but a gate failed (``parity.json`` says which); 2 a mistake that one line
on stderr explains, nothing written; 130 interrupted, nothing written.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from lavit_edge.cli import Parser, run_command
from lavit_edge.errors import UserError
from lavit_edge.export.targets import TARGETS, choices, find_target
from lavit_edge.parity.options import add_gates, gates_from

DEFAULT_CHECKPOINT = "lavit_mobile_s_imagenette160"


def parser() -> argparse.ArgumentParser:
    p = Parser(
        prog="lavit_edge.export", description="Turn a checkpoint into .pte, .mlpackage and .onnx, and check that they agree."
    )
    p.add_argument("--target", default="all", help=f"{', '.join(TARGETS)}, or all")
    p.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help="a checkpoint folder, or the name of a bundled one")
    p.add_argument("--precision", choices=("int8", "float"), default="int8", help="float: fp32, and fp16 for Core ML")
    p.add_argument("--out", type=Path, help="bundle folder (default: bundle/CHECKPOINT-PRECISION)")
    p.add_argument("--data", type=Path, help="also compare on DATA/val/<class>/ pictures")
    p.add_argument("--pictures", type=int, default=500, help="how many of them")
    p.add_argument("--strict", action="store_true", help="refuse a picture that cannot be decoded instead of skipping it")
    p.add_argument(
        "--tolerance-steps",
        type=float,
        help="that the artifacts' self-test allows on every picture, instead of what is measured for each",
    )
    for target in TARGETS.values():
        for name, allowed in choices(target.options).items():
            p.add_argument(f"--{name.replace('_', '-')}", metavar="|".join(allowed), help=f"{target.name}: {', '.join(allowed)}")
    p.add_argument("--sign", type=Path, metavar="KEY", help="sign the bundle with this EC private key (PEM)")
    add_gates(p)
    p.add_argument("--json", action="store_true", help="print the result as JSON on stdout, progress on stderr")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    names = list(TARGETS) if args.target == "all" else [find_target(args.target).name]
    options = {}
    for name in names:
        known = choices(TARGETS[name].options)
        options[name] = TARGETS[name].make_options(**{key: getattr(args, key) for key in known if getattr(args, key) is not None})
    for target in TARGETS.values():
        for key in choices(target.options):
            if target.name not in names and getattr(args, key) is not None:
                raise UserError(
                    f"--{key.replace('_', '-')} belongs to target {target.name}, which --target {args.target} leaves out"
                )
    gates = gates_from(args)
    if args.tolerance_steps is not None and not 0 < args.tolerance_steps < math.inf:
        raise UserError(f"--tolerance-steps must be positive, not {args.tolerance_steps}")

    from lavit_edge.checkpoint import bundled_checkpoints
    from lavit_edge.export.bundle import export_bundle

    checkpoint = bundled_checkpoints().get(args.checkpoint, Path(args.checkpoint))
    out = args.out or Path("bundle") / f"{checkpoint.resolve().name}-{args.precision}"
    result = export_bundle(
        checkpoint,
        options,
        args.precision,
        out,
        data=args.data,
        pictures=args.pictures,
        gates=gates,
        tolerance_steps=args.tolerance_steps,
        strict=args.strict,
        private_key=args.sign,
    )
    if args.json:
        print(json.dumps(result, indent=1))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    run_command(main)
