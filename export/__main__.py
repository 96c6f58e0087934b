"""``python -m lavit_edge.export``: a checkpoint becomes a bundle of artifacts that are shown to agree.

Exit codes: 0 exported and all gates passed; 1 exported, but a gate failed (``parity.json`` says which); 2 a mistake that one line
on stderr explains, nothing written; 130 interrupted, nothing written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lavit_edge.cli import Parser, add_options, config_from, new_console, run_command
from lavit_edge.export.config import ExportConfig
from lavit_edge.export.targets import ALL, TARGETS, choices, find_target
from lavit_edge.parity.agreement import Gates

DEFAULT_CHECKPOINT = "lavit_mobile_s_imagenette160"


def parser() -> argparse.ArgumentParser:
    p = Parser(
        prog="lavit_edge.export",
        description="Turn a checkpoint into .pte, .mlpackage, .onnx, .tflite or .aimodel, and check if they agree.",
    )
    p.add_argument("--target", default="all", help=f"{', '.join(TARGETS)}, or all ({', '.join(ALL)})")
    p.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help="a checkpoint folder, or the name of a bundled one")
    p.add_argument("--out", type=Path, help="bundle folder (default: bundle/CHECKPOINT-PRECISION)")
    add_options(p, ExportConfig)
    for target in TARGETS.values():
        for name, allowed in choices(target.options).items():
            p.add_argument(f"--{name.replace('_', '-')}", metavar="|".join(allowed), help=f"{target.name}: {', '.join(allowed)}")
    add_options(p, Gates, "gate, see docs/parity.md")
    p.add_argument("--json", action="store_true", help="print the result as JSON on stdout, progress on stderr")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    targets = ALL if args.target == "all" else (find_target(args.target).name,)
    given = {target: {key: getattr(args, key) for key in choices(target.options)} for target in TARGETS.values()}
    options = tuple(target.make_options(**values) for target, values in given.items() if any(values.values()))
    config = config_from(ExportConfig, args, targets=targets, options=options, gates=config_from(Gates, args))

    from lavit_edge.checkpoint import bundled_checkpoints
    from lavit_edge.export.bundle import export

    folder = bundled_checkpoints().get(args.checkpoint, Path(args.checkpoint))
    out = args.out or Path("bundle") / f"{folder.resolve().name}-{args.precision}"
    exported = export(args.checkpoint, out, config, console=new_console(stderr=True))
    if args.json:
        print(json.dumps(exported.to_dict(), indent=1))
    return 0 if exported.passed else 1


if __name__ == "__main__":
    run_command(main)
