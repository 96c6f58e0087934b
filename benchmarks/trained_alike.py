"""Trains nets of all makers by one recipe and keeps a line for each finished run: what benchmarks/pareto.py sets against latency.

    export OMP_NUM_THREADS=1
    python benchmarks/trained_alike.py --models lavit_mobile_s MobileNetV2 --seeds 0 1 2 --data IMAGENETTE --cache CACHE.npy

The recipe is lavit_edge/train/recipes/trained_alike.py, the loop this package's. Each run is a process of its own, one after the
other, first seeds first; on several cores start it several times with other --models. What is in --results is not trained again,
and what was stopped (SIGTERM saves) goes on where it was, so that the table can be completed on several days and machines.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import itertools
import json
import multiprocessing
import signal
from pathlib import Path

from entrants import ENTRANTS, check_names, register_entrants
from trained_results import Result, append, current_commit, read_results

from lavit_edge.checkpoint import load_checkpoint
from lavit_edge.cli import run_command
from lavit_edge.errors import UserError
from lavit_edge.train.__main__ import main as train_main
from lavit_edge.train.loop import CHECKPOINT
from lavit_edge.train.recipe import Recipe, find_recipe

RECIPE = "trained_alike"
STOPPED = (130, 143, -signal.SIGTERM, -signal.SIGINT)  # exit codes


def train(argv: list[str]) -> None:
    """The body of a process."""
    register_entrants()
    run_command(lambda: train_main(argv))


def run(argv: list[str]) -> int:
    """The exit code of a training in a process of its own, which is stopped when this one is."""
    process = multiprocessing.get_context("spawn").Process(target=train, args=(argv,))
    process.start()
    signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def result_of(folder: Path, recipe: Recipe, commit: str) -> Result:
    """What a finished run came to."""
    checkpoint = load_checkpoint(folder / CHECKPOINT)
    metrics, training = checkpoint.config["metrics"], checkpoint.config["training"]
    return Result(
        model=training["recipe"]["model"],
        seed=training["recipe"]["seed"],
        top1=metrics["val_top1"],
        pictures=metrics["val_pictures"],
        params=sum(parameter.numel() for parameter in checkpoint.model.deploy().parameters()),
        epochs=metrics["epoch"],
        pixels=checkpoint.contract.size,
        seconds=metrics["seconds"],
        device=training["device"],
        recipe=recipe_digest(recipe),
        commit=commit,
    )


def recipe_digest(recipe: Recipe) -> str:
    """Of all that runs must have in common: the recipe less model and seed."""
    shared = {name: value for name, value in dataclasses.asdict(recipe).items() if name not in ("model", "seed")}
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:12]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(ENTRANTS), help=f"default: {', '.join(ENTRANTS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="default: %(default)s")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/<class>/ and val/<class>/")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for a folder of each run; default: %(default)s")
    parser.add_argument("--results", type=Path, default=Path("docs/trained_alike.jsonl"), help="default: %(default)s")
    parser.add_argument("--cache", type=Path, help="as of python -m lavit_edge.train")
    parser.add_argument("--workers", default="1", help="as of python -m lavit_edge.train; default: %(default)s")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="what differs from the recipe, for all models")
    arguments = parser.parse_args()
    register_entrants()
    check_names(arguments.models)
    recipe, commit = find_recipe(RECIPE).changed(arguments.set), current_commit()
    options = ["--data", str(arguments.data), "--workers", arguments.workers, "--recipe", RECIPE, "--resume"]
    options += ["--cache", str(arguments.cache)] if arguments.cache else []
    failed = []
    for seed, model in itertools.product(arguments.seeds, arguments.models):
        results = read_results(arguments.results, Result)
        if any(result.recipe != recipe_digest(recipe) for result in results):
            raise UserError(f"{arguments.results} holds runs of another recipe; choose another --results")
        if any((result.model, result.seed) == (model, seed) for result in results):
            print(f"{model}, seed {seed}: is in {arguments.results}", flush=True)
            continue
        print(f"{model}, seed {seed}", flush=True)
        folder = arguments.out / f"{model}-{seed}"
        settings = [*arguments.set, f"model={model}", f"seed={seed}"]
        code = run([*options, "--out", str(folder), "--set", *settings])
        if code in STOPPED:
            return 143 if code == -signal.SIGTERM else abs(code)
        if code:
            failed.append(f"{model}-{seed} (exit code {code})")
            continue
        append(arguments.results, result_of(folder, recipe, commit))
    if failed:
        raise UserError(f"not trained: {', '.join(failed)}; the lines above say why")
    return 0


if __name__ == "__main__":
    run_command(main)
