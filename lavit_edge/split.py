"""``python -m lavit_edge.split``: a folder of classes into ``train/`` and ``val/``.

Exit codes: 0 done; 2 a mistake that one line on stderr explains; 130 interrupted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lavit_edge.cli import Parser, add_options, config_from, run_command
from lavit_edge.data.split import SplitConfig, split


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.split", description="A folder of <class>/<picture> into train/ and val/, which are copies.")
    p.add_argument("folder", type=Path, help="one folder a class; labels.csv may name them")
    p.add_argument("--out", type=Path, required=True, help="new folder")
    add_options(p, SplitConfig)
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    split(args.folder, args.out, config_from(SplitConfig, args), print)
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    run_command(main)
