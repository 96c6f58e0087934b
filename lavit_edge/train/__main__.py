"""``python -m lavit_edge.train``: train a model on a folder of pictures, in one process or under ``torchrun``.

Exit codes: 0 trained; 2 a mistake that one line on stderr explains; 130 interrupted; 143 stopped by SIGTERM, and saved.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lavit_edge.cli import Parser, add_options, config_from, new_console, run_command
from lavit_edge.train.config import TrainConfig
from lavit_edge.train.recipe import default_recipe, find_recipe, recipe_names


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="lavit_edge.train", description="Train a model on a folder of pictures; under torchrun in several processes.")
    p.add_argument("--data", type=Path, required=True, help="folder with train/<class>/ and val/<class>/, or shards")
    p.add_argument("--out", type=Path, required=True, help="run folder: log.csv, state to resume from, checkpoint/")
    p.add_argument(
        "--recipe", help=f"{', '.join(recipe_names())} (default: fine_tune with --init, else Recipe() of train/recipe.py)"
    )
    p.add_argument("--model", help="the same as --set model=MODEL; a name of lavit_edge.list_models()")
    p.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings that differ from the recipe"
    )
    add_options(p, TrainConfig)
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    config = config_from(TrainConfig, args)
    recipe = (find_recipe(args.recipe) if args.recipe else default_recipe(bool(config.init))).changed(args.set)
    if args.model:
        recipe = recipe.changed([f"model={args.model}"])

    from lavit_edge.train.loop import Stopped
    from lavit_edge.train.run import train

    try:
        train(args.data, args.out, recipe, config, console=new_console(stderr=True), tell=print)
    except Stopped:
        return 143
    return 0


if __name__ == "__main__":
    run_command(main)
