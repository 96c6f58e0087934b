"""``python -m lavit_edge.verdict``: what an artifact will run where, and whether int8 will pay; from the file alone.

Exit codes: 0 judged; 1 an int8 artifact that should be slower than float; 2 a mistake that one line on stderr explains;
130 interrupted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lavit_edge.cli import Parser, new_console, run_command
from lavit_edge.verdict.rates import PROFILES


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.verdict", description="Predict, from an artifact alone, whether int8 will be faster than float.")
    p.add_argument("artifact", type=Path, help="a .pte, .onnx, .ort, .tflite, .mlpackage or .aimodel")
    p.add_argument(
        "--target-device", help=f"{', '.join(PROFILES)} (default: this machine's kind; apple-ane for Core ML and Core AI)"
    )
    p.add_argument("--json", action="store_true", help="print the verdict as JSON on stdout")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from rich.text import Text

    from lavit_edge.verdict.judge import judge
    from lavit_edge.verdict.read import read
    from lavit_edge.verdict.render import print_verdict

    with new_console(stderr=True).status(Text(f"reading {args.artifact.name}")):
        verdict = judge(*read(args.artifact, args.target_device))
    if args.json:
        print(json.dumps(verdict.to_dict(), indent=1))
    else:
        print_verdict(args.artifact.name, verdict, new_console())
    return 1 if verdict.precision == "int8" and verdict.expectation == "slower" else 0


if __name__ == "__main__":
    run_command(main)
