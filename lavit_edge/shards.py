"""``python -m lavit_edge.shards``: a folder of pictures into tar shards, or shards into a folder of pictures.

Exit codes: 0 done; 2 a mistake that one line on stderr explains; 130 interrupted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lavit_edge.cli import Parser, run_command
from lavit_edge.errors import UserError


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.shards", description="Pictures from train/<class>/ and val/<class>/ into tar shards, or back.")
    p.add_argument(
        "--data", type=Path, required=True, help="folder of pictures, or of shards, which are turned back into a folder"
    )
    p.add_argument("--out", type=Path, required=True, help="new folder")
    p.add_argument("--pictures-per-shard", type=int, default=1000, help="100 MB to a shard or more is good")
    p.add_argument("--strict", action="store_true", help="refuse a picture that cannot be decoded instead of leaving it out")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.pictures_per_shard < 1:
        raise UserError(f"--pictures-per-shard must be at least 1, not {args.pictures_per_shard}")
    from lavit_edge.data.convert import to_folder, to_shards
    from lavit_edge.data.shards import holds_shards

    if holds_shards(args.data):
        to_folder(args.data, args.out)
    else:
        skipped = to_shards(args.data, args.out, args.pictures_per_shard, args.strict)
        for error in skipped:
            print(f"skipped: {error}")
        if skipped:
            print(f"left out {len(skipped)} pictures that could not be decoded")
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    run_command(main)
